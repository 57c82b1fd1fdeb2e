#include "state/consoles.pb.h"
#include "state/section_codec.h"
#include "state/testing/golden.h"
#include "sys/io_thread.h"
#include "vmm/consoles.h"

#include <sys/socket.h>

#include <array>

namespace godwit::vmm {
namespace {

/// Both consoles of a machine, made anew for every section they are to take.
struct ConsolesTest : ::testing::Test {
    ConsolesTest()
        : io(GODWIT_MUST(sys::IoThread::create("consoles-test"))) {} // a thread is to be had
    std::unique_ptr<Consoles> make() {
        machine::MachineSpec spec;
        spec.serial = true;
        spec.virtio_console = true;
        return std::make_unique<Consoles>(
            io->loop(), spec, [](std::string_view, std::span<const std::byte>) { return 0U; });
    }
    /// Ports and clients belong to the loop's thread.
    void drop(std::unique_ptr<Consoles> consoles) {
        io->loop().run_and_wait([&] { consoles.reset(); });
    }
    static sys::FdManifest clients() {
        std::array<int, 2> ends{};
        GODWIT_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
        const sys::Fd far(ends[1]);
        sys::FdManifest manifest;
        GODWIT_MUST(manifest.add("console-serial.0", sys::Fd(ends[0]))); // the first of its name
        return manifest;
    }
    static state::Consoles message() {
        state::Consoles saved;
        state::ConsolePort& serial = *saved.add_ports();
        serial.set_name("serial");
        serial.set_backlog("login: ");
        serial.set_backlog_offset(1000);
        serial.set_read_offset(1007);
        state::ConsoleClient& client = *serial.add_clients();
        client.set_descriptor("console-serial.0");
        client.set_offset(1003);
        client.set_pending_input("root\n");
        state::ConsolePort& virtio = *saved.add_ports();
        virtio.set_name("virtio");
        virtio.set_backlog("ready\n");
        virtio.set_backlog_offset(5);
        virtio.set_read_offset(6);
        return saved;
    }
    std::unique_ptr<sys::IoThread> io;
};

TEST_F(ConsolesTest, golden_sections_are_read_and_written_again) {
    const auto resave = [this](const state::Section& section) -> Result<state::Section> {
        auto consoles = make();
        const auto adopted = consoles->adopt(section, clients());
        consoles->freeze();
        auto saved = consoles->save();
        drop(std::move(consoles));
        GODWIT_TRY(adopted);
        return std::get<state::Section>(GODWIT_TRY(std::move(saved)));
    };
    EXPECT_EQ(state::testing::check_goldens(state::encode_section(Consoles::section, 0, message()),
                                            resave),
              "");
}

TEST_F(ConsolesTest, newer_version_is_refused_by_name) {
    state::Section section = state::encode_section(Consoles::section, 0, message());
    ++section.version;
    auto consoles = make();
    const auto adopted = consoles->adopt(section, clients());
    drop(std::move(consoles));
    ASSERT_FALSE(adopted.has_value());
    EXPECT_NE(adopted.error().to_string().find("'vmm-consoles' has version 2"), std::string::npos);
}

} // namespace
} // namespace godwit::vmm
