#include "exchange/partition/new_instance.h"
#include "roles.h"

#include <unistd.h>

namespace godwit::partition_test {

namespace {

using partition::MessageType;
using partition::NewStage;

/// The new instance: takes programs as they come, then the estate, then serves alone.
class NewRole {
  public:
    NewRole(Instance& instance, partition::NewInstance fresh)
        : instance_(instance), fresh_(std::move(fresh)) {}

    Status begin() {
        cpus_ = GODWIT_TRY(
            partition::CpuPartition::create("godwit-test-new-" + std::to_string(::getpid()), {1}));
        GODWIT_TRY(cpus_->add_process(::getpid()));
        io_before_ = io_bytes();
        return fresh_.hello();
    }

    Result<bool> tick() {
        if (stage_ == NewStage::done) {
            return serve(instance_.report(), new_id);
        }
        for (const partition::News& news : GODWIT_TRY(fresh_.mover().news())) {
            if (news.type == MessageType::offer) {
                GODWIT_TRY(take(news));
            }
        }
        stage_ = GODWIT_TRY(fresh_.settle_estate());
        if (stage_ == NewStage::done) {
            GODWIT_TRY(inherit());
        }
        return true;
    }

  private:
    Status take(const partition::News& offer) {
        const partition::Taken taken = GODWIT_TRY(fresh_.mover().take(offer));
        groups_.push_back(
            GODWIT_TRY(Group::start(taken.program.tag - first_tag, new_id, taken.program.memory)));
        GODWIT_TRY(fresh_.mover().running(taken));
        instance_.report().io_bytes[1] = io_bytes() - io_before_;
        return ok();
    }

    Status inherit() {
        Report& report = instance_.report();
        report.inherited_ns = sys::system_clock().now().time_since_epoch().count();
        report.frames_scrubbed = fresh_.legacy().frames_scrubbed;
        for (const partition::Inherited& program : fresh_.legacy().programs) {
            groups_.push_back(
                GODWIT_TRY(Group::start(program.tag - first_tag, new_id, program.memory)));
            GODWIT_TRY(instance_.pool.free(program.state));
        }
        const auto cpus = instance_.region.cpus_of(fresh_.mover().self());
        return cpus_->set_cpus({cpus.begin(), cpus.end()});
    }

    Instance& instance_;
    partition::NewInstance fresh_;
    NewStage stage_ = NewStage::waiting;
    std::vector<Group> groups_;
    std::optional<partition::CpuPartition> cpus_;
    std::uint64_t io_before_ = 0;
};

} // namespace

Status run_new(std::int32_t old_pid) {
    Instance instance = GODWIT_TRY(Instance::open(partition::Side::new_instance));
    std::vector<sys::Process> old;
    // If it has ended already, its lifeline says so.
    if (auto process = sys::Process::adopt(old_pid); process.has_value()) {
        old.push_back(std::move(*process));
    }
    partition::ProcessWitness witness(
        instance.region, partition::Side::old_instance, std::move(old), sys::Fd(peer_line_number));
    auto fresh = GODWIT_TRY(partition::NewInstance::create(
        instance.parts(), witness, {.grace = std::chrono::milliseconds(500)}));
    NewRole role(instance, std::move(fresh));
    GODWIT_TRY(role.begin());
    return instance.run([&] { return role.tick(); });
}

} // namespace godwit::partition_test
