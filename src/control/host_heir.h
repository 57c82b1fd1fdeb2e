#pragma once

/// The new godwitd of an exchange between two partitions of a host, from its start until everything
/// is its own (requirements MP-1 to MP-6): starts a VMM for each machine it is offered, takes over
/// CPUs, and in the end what the old godwitd leaves. Then it serves the run directory as any
/// godwitd that finds machines running.
///
///   joining --welcome--> beside --everything is ours--> over
///                          +------goodbye, or the old one serves on--> over
///
/// If it ends before the estate is sealed, the old godwitd serves on; if the old one ends early, it
/// takes over all there is. docs/formats/partition-region.md. Control thread only.

#include "control/json_text.h"
#include "control/run_directory.h"
#include "control/vmm_instance.h"
#include "exchange/partition/cpu_partition.h"
#include "exchange/partition/new_instance.h"
#include "sys/event_loop.h"
#include "sys/file_lock.h"
#include "sys/unix_socket.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::control {

class HostHeir final : public VmmWatcher {
  public:
    /// Waits for the welcome of the godwitd at the other end of `socket`, and checks it.
    [[nodiscard]] static Result<std::unique_ptr<HostHeir>> join(sys::EventLoop& loop,
                                                                const RunDirectory& run,
                                                                const std::string& vmm_program,
                                                                sys::Fd socket);
    ~HostHeir() override;

    /// Runs the loop until everything is ours (true) or the exchange was given up, or `stop` is
    /// signalled (false): then nothing is to be touched any more.
    [[nodiscard]] Result<bool> serve(const sys::EventFd& stop);

    // After serve() was true:
    struct Inheritance {
        memory::Pool pool;
        memory::PoolOwner self;
        sys::FileLock lock;
        std::uint64_t operation = 0;
        std::unique_ptr<Json> report; ///< Of the whole exchange; JSON null if none was left.
    };
    /// Takes it out. This object stays: it has the VMMs as children.
    [[nodiscard]] Inheritance take();

    void vmm_changed(VmmInstance& vmm) override;
    void vmm_event(VmmInstance& vmm, const Json& event) override;
    void vmm_refused(VmmInstance& vmm, const std::string& what) override;
    void vmm_ended(VmmInstance& vmm, const sys::ExitStatus& exit) override;

  private:
    struct Guest {
        std::shared_ptr<VmmInstance> vmm;
        std::size_t slot = 0;
        bool started = false; ///< And its giver knows.
        bool told = false;    ///< That it runs here.
    };

    HostHeir(sys::EventLoop& loop,
             const RunDirectory& run,
             std::string vmm_program,
             sys::MessageSocket socket);
    [[nodiscard]] Status welcomed(sys::Message message);
    [[nodiscard]] Status watch();
    void tick();
    [[nodiscard]] Status look_at_news();
    void settle();
    void hear();
    [[nodiscard]] Status heard(sys::Message message);
    [[nodiscard]] Status
    launch(const std::string& machine, std::size_t slot, std::uint64_t epoch, const sys::Fd& end);
    void launched(const std::string& machine, std::size_t slot, const Status& outcome);
    void answer(const Json& message);
    [[nodiscard]] Status widen();
    [[nodiscard]] Status read_testament(const Json& message);
    void complete_report();
    void over(bool ours);

    sys::EventLoop& loop_;
    const RunDirectory& run_;
    const std::string vmm_program_;
    sys::MessageSocket socket_;
    std::uint64_t operation_ = 0;
    std::optional<memory::Pool> pool_;
    std::optional<exchange::partition::Region> region_;
    std::optional<sys::FileLock> lock_; ///< Shared with the old godwitd as long as that lives.
    std::optional<sys::EventFd> own_bell_;
    std::optional<sys::EventFd> old_bell_;
    std::optional<exchange::partition::CpuPartition> cpus_;
    std::unique_ptr<exchange::partition::ProcessWitness> witness_;
    std::optional<exchange::partition::NewInstance> instance_;
    std::map<std::string, Guest> guests_;
    std::unique_ptr<Json> report_; ///< Never null.
    std::optional<bool> ours_;
    sys::EventLoop::Handle tick_;
    sys::EventLoop::Handle wake_;
    sys::EventLoop::Handle bell_watch_;
    sys::EventLoop::Handle socket_watch_;
};

} // namespace godwit::control
