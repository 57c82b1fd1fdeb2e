#include "exchange/partition/old_instance.h"
#include "roles.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

namespace godwit::partition_test {

namespace {

using namespace std::chrono_literals;
using memory::Purpose;
using partition::Fate;
using partition::MessageType;

constexpr memory::PoolOwner self{old_id};
constexpr auto notice = 300ms;
constexpr auto together_min = 1050ms;

/// The old instance: starts three programs, divides the host, moves them, bequeaths the rest; and
/// serves on if the new one dies.
class OldRole {
  public:
    OldRole(Instance& instance, partition::OldInstance old, std::string new_program)
        : instance_(instance), old_(std::move(old)), new_program_(std::move(new_program)) {}

    Status begin() {
        const auto own = GODWIT_TRY(instance_.pool.allocate(self, 2, Purpose::instance, old_id));
        // What must not be found afterwards.
        const std::string secret(4096, 'S');
        GODWIT_TRY(sys::pwrite_all(instance_.pool.memory_fd(),
                                   std::as_bytes(std::span(secret)),
                                   own[0].run.first * memory::pool_frame_bytes));
        for (std::size_t i = 0; i < programs; ++i) {
            const auto extents = GODWIT_TRY(
                instance_.pool.allocate(self, program_frames, Purpose::program, first_tag + i));
            groups_.push_back(GODWIT_TRY(Group::start(i, old_id, extents)));
        }
        cpus_ = GODWIT_TRY(
            partition::CpuPartition::create("godwit-test-old-" + std::to_string(::getpid()), {0}));
        GODWIT_TRY(cpus_->add_process(::getpid()));
        GODWIT_TRY(old_.partition({.frames = 4, .cpus = {1}, .host_cpus = {0, 1}}));
        return start_new();
    }

    Result<bool> tick() {
        if (ended_) {
            return serve(instance_.report(), old_id);
        }
        if (new_.has_value() &&
            witness_->liveness(sys::system_clock().now()) == partition::Liveness::terminated &&
            old_.stage() != partition::OldStage::sealed) {
            GODWIT_TRY(serve_alone());
            return true;
        }
        for (const partition::News& news : GODWIT_TRY(old_.mover().news())) {
            if (news.type == MessageType::hello) {
                met_at_ = sys::system_clock().now();
                met_beats_ = beats();
            } else if (news.type == MessageType::running) {
                is_moving_ = false;
            }
        }
        if (!met_at_.has_value() || sys::system_clock().now() - *met_at_ < together_min) {
            return true;
        }
        return move_on();
    }

  private:
    Status start_new() {
        int line[2] = {-1, -1};
        if (::pipe2(line, O_CLOEXEC) != 0) {
            return Error::from_errno(errno, "create the new instance's lifeline");
        }
        sys::Fd read_end(line[0]);
        const sys::Fd write_end(line[1]);
        sys::Fd everyone(everyone_number);
        sys::Fd peer_line(peer_line_number); // The read end of our own line, kept for the heir.
        auto started = sys::Process::spawn({.program = new_program_,
                                            .arguments = {"new", std::to_string(::getpid())},
                                            .fds = {{&instance_.pool.memory_fd(), memory_number},
                                                    {&instance_.pool.table().fd(), table_number},
                                                    {&instance_.region.fd(), region_number},
                                                    {&instance_.report_fd, report_number},
                                                    {&everyone, everyone_number},
                                                    {&write_end, own_line_number},
                                                    {&peer_line, peer_line_number},
                                                    {&instance_.own_bell.fd(), old_bell_number},
                                                    {&instance_.peer_bell.fd(), new_bell_number}}});
        static_cast<void>(everyone.release());
        std::vector<sys::Process> processes;
        processes.push_back(GODWIT_TRY(std::move(started)));
        new_ = processes.back().pid();
        instance_.report().new_pid = static_cast<std::uint32_t>(*new_);
        witness_ = std::make_unique<partition::ProcessWitness>(instance_.region,
                                                               partition::Side::new_instance,
                                                               std::move(processes),
                                                               std::move(read_end));
        return ok();
    }

    std::array<std::uint64_t, 2> beats() const {
        return {instance_.region.beats(partition::Side::old_instance),
                instance_.region.beats(partition::Side::new_instance)};
    }

    void write_down_the_time_together() {
        Report& report = instance_.report();
        report.together_ns = (sys::system_clock().now() - *met_at_).count();
        const auto now = beats();
        report.beats_together[0] = now[0] - met_beats_[0];
        report.beats_together[1] = now[1] - met_beats_[1];
        io_before_ = io_bytes();
    }

    /// One program after the other; then the estate.
    Result<bool> move_on() {
        if (is_moving_ || old_.stage() == partition::OldStage::sealed) {
            return true;
        }
        if (instance_.report().together_ns == 0) {
            write_down_the_time_together();
        }
        if (groups_.empty()) {
            return bequeath();
        }
        Group group = std::move(groups_.back());
        groups_.pop_back();
        const std::uint64_t others = groups_.empty() ? 0 : acknowledged(groups_.front().program());
        GODWIT_TRY(group.stop());
        const std::uint64_t tag = first_tag + group.program();
        const auto state = GODWIT_TRY(instance_.pool.allocate(self, 1, Purpose::state, tag));
        const std::string saved = std::to_string(group.program());
        GODWIT_TRY(sys::pwrite_all(instance_.pool.memory_fd(),
                                   std::as_bytes(std::span(saved)),
                                   state[0].run.first * memory::pool_frame_bytes));
        slots_.push_back(GODWIT_TRY(old_.mover().give({.name = "group" + saved,
                                                       .kind = partition::ProgramKind::processes,
                                                       .tag = tag,
                                                       .state_bytes = saved.size()})));
        is_moving_ = true;
        if (!groups_.empty() && acknowledged(groups_.front().program()) > others) {
            ++instance_.report().moved_while_others_ran;
        }
        return true;
    }

    std::uint64_t acknowledged(std::size_t program) const {
        return instance_.report().program[program].acknowledged;
    }

    Result<bool> bequeath() {
        instance_.report().io_bytes[0] = io_bytes() - io_before_;
        GODWIT_TRY(old_.drain());
        GODWIT_TRY(old_.write_estate(notice));
        instance_.report().sealed_deadline_ns =
            (sys::system_clock().now() + notice).time_since_epoch().count();
        GODWIT_TRY(old_.seal());
        // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing changes the environment.
        if (std::getenv("GODWIT_TEST_LINGER") != nullptr) {
            return true; // Claims to shut down and does not: the heir has to fence.
        }
        return false;
    }

    /// The new instance has ended: what it had is ours again, and every program runs here.
    Status serve_alone() {
        GODWIT_TRY(old_.reclaim());
        for (Group& group : groups_) {
            GODWIT_TRY(group.stop());
        }
        groups_.clear();
        for (ProgramReport& program : instance_.report().program) {
            program.runs_under = 0; // Only what runs from here on counts.
        }
        for (const partition::Inherited& program :
             GODWIT_TRY(partition::programs_of(instance_.pool, self))) {
            groups_.push_back(
                GODWIT_TRY(Group::start(program.tag - first_tag, old_id, program.memory)));
            GODWIT_TRY(instance_.pool.free(program.state));
        }
        ended_ = true;
        return ok();
    }

    Instance& instance_;
    partition::OldInstance old_;
    std::string new_program_;
    std::vector<Group> groups_;
    std::optional<partition::CpuPartition> cpus_;
    std::optional<int> new_;
    std::unique_ptr<partition::ProcessWitness> witness_;
    std::optional<sys::Moment> met_at_;
    std::array<std::uint64_t, 2> met_beats_{};
    std::uint64_t io_before_ = 0;
    bool is_moving_ = false;
    bool ended_ = false;
    std::vector<std::size_t> slots_;
};

} // namespace

Status run_old(const std::string& new_program) {
    Instance instance = GODWIT_TRY(Instance::open(partition::Side::old_instance));
    auto old = GODWIT_TRY(partition::OldInstance::create(instance.parts()));
    OldRole role(instance, std::move(old), new_program);
    GODWIT_TRY(role.begin());
    return instance.run([&] { return role.tick(); });
}

} // namespace godwit::partition_test
