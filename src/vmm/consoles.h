#pragma once

/// All consoles of one machine, as the endpoints an exchange hands over.
/// Thread rule: as ConsolePort; freeze(), thaw(), descriptors() and save() may be called from the
/// thread that runs an exchange: they go to the loop's thread and wait.

#include "exchange/destination.h"
#include "exchange/source.h"
#include "state/schema_trial.h"
#include "vmm/console_port.h"

#include <map>
#include <memory>

namespace godwit::vmm {

class Consoles final : public exchange::Endpoints {
  public:
    static constexpr state::SectionType section{"vmm-consoles", 1};

    /// Takes input for a port of the machine ("serial", "virtio").
    using Input = std::function<std::size_t(std::string_view port, std::span<const std::byte>)>;

    /// Makes the ports a machine of this description has; they do not listen yet.
    Consoles(sys::EventLoop& loop, const machine::MachineSpec& spec, Input input);
    ~Consoles() override = default;

    /// Listens under `directory` ("console-serial.sock", ...).
    [[nodiscard]] Status listen(const std::string& directory);
    void write(std::string_view port, std::span<const std::byte> bytes);
    void input_ready(std::string_view port);
    /// Port name and socket path, for `info`.
    [[nodiscard]] std::map<std::string, std::string> paths() const { return paths_; }
    void close();
    void flush_all();

    void freeze() override;
    void thaw() override;
    /// As thaw(), but already on the loop's thread.
    void thaw_here();
    [[nodiscard]] Result<sys::FdManifest> descriptors() const override;
    [[nodiscard]] state::SectionType section_type() const override {
        return state::on_trial(section);
    }
    [[nodiscard]] state::SectionId section_id() const override { return section.id(); }
    [[nodiscard]] Result<state::Saved> save() const override;
    [[nodiscard]] std::string save_blocker() const override { return {}; }
    /// Checks what a predecessor saved and keeps it until thaw(), which takes it. Before listen()
    /// and anything that is written; any thread.
    [[nodiscard]] Status adopt(const state::Section& saved, sys::FdManifest descriptors);

  private:
    sys::EventLoop& loop_;
    std::map<std::string, std::unique_ptr<ConsolePort>, std::less<>> ports_;
    std::map<std::string, std::string> paths_;
};

} // namespace godwit::vmm
