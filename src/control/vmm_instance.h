#pragma once

/// One godwit-vmm process: started by us or found running, watched until it ends, and kept
/// connected as long as it lives. Its death is always noticed (pidfd), its silence by time limits.
///
/// Destroying an instance does not end the process. Control thread only; the watcher's functions
/// come on the loop's thread and may drop the instance.

#include "base/result.h"
#include "control/reply.h"
#include "control/run_directory.h"
#include "control/service_partition.h"
#include "control/vmm_client.h"
#include "handover/owner_record.h"
#include "sys/event_loop.h"
#include "sys/process.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::control {

class VmmInstance;

class VmmWatcher {
  public:
    VmmWatcher() = default;
    VmmWatcher(const VmmWatcher&) = delete;
    VmmWatcher& operator=(const VmmWatcher&) = delete;
    virtual ~VmmWatcher() = default;
    /// status() has news, or the connection came or went.
    virtual void vmm_changed(VmmInstance& vmm) = 0;
    virtual void vmm_event(VmmInstance& vmm, const Json& event) = 0;
    /// It was refused something in its service partition.
    virtual void vmm_refused(VmmInstance& vmm, const std::string& what) = 0;
    /// The process is gone. Everything it had sent before has been delivered.
    virtual void vmm_ended(VmmInstance& vmm, const sys::ExitStatus& exit) = 0;
};

/// A descriptor a VMM is started with, and the flag that tells it the number.
struct InheritedFd {
    std::string flag;
    const sys::Fd* fd = nullptr;
};

struct VmmLaunch {
    std::string program;
    std::string machine;
    /// "--spec FILE", "--restore DIR" or nothing.
    std::vector<std::string> source;
    const sys::Fd* incoming = nullptr; ///< A successor's end of the handover connection.
    std::vector<InheritedFd> extra{};
    std::chrono::milliseconds ready_time_max{30'000};
    PartitionPolicy partition = PartitionPolicy::off; ///< Of a successor.
};

class VmmInstance : public std::enable_shared_from_this<VmmInstance> {
  public:
    /// Starts a process with a fresh instance id. `ready` is answered when it says so, fails or
    /// takes too long (then it has been killed). On an error it is left to the caller.
    [[nodiscard]] static Result<std::shared_ptr<VmmInstance>> launch(sys::EventLoop& loop,
                                                                     const RunDirectory& run,
                                                                     const VmmLaunch& options,
                                                                     VmmWatcher& watcher,
                                                                     Reply<void>& ready);
    /// Connects to a running one. peer_closed or not_found if nobody is there.
    [[nodiscard]] static Result<std::shared_ptr<VmmInstance>> adopt(sys::EventLoop& loop,
                                                                    const RunDirectory& run,
                                                                    const std::string& machine,
                                                                    const std::string& id,
                                                                    VmmWatcher& watcher);
    VmmInstance(const VmmInstance&) = delete;
    VmmInstance& operator=(const VmmInstance&) = delete;
    ~VmmInstance();

    [[nodiscard]] const std::string& machine() const noexcept { return machine_; }
    [[nodiscard]] const std::string& id() const noexcept { return id_; }
    [[nodiscard]] int pid() const noexcept { return process_.pid(); }
    [[nodiscard]] bool alive() const noexcept { return alive_; }
    [[nodiscard]] bool connected() const noexcept { return client_ != nullptr; }
    /// Why it is not connected.
    [[nodiscard]] const std::string& trouble() const noexcept { return trouble_; }
    /// What it said last; nothing before its first answer.
    [[nodiscard]] const std::optional<VmmStatus>& status() const noexcept { return status_; }

    /// As VmmClient::call; fails if there is no connection.
    void call(std::string_view method,
              const Json& params,
              std::chrono::milliseconds timeout,
              Reply<Json> reply,
              const sys::Fd* passed = nullptr);
    /// The owner record of its machine as it handed it out; null if it has not (yet).
    [[nodiscard]] const std::shared_ptr<handover::OwnerRecord>& record() const noexcept {
        return record_;
    }
    /// Asks for the memory pool its machine lies in: two descriptors.
    void fetch_pool(Reply<VmmAnswer> reply);
    /// What its service partition has to say; says why if it is in none.
    [[nodiscard]] Json partition_report();
    /// Lets a confined process look at the host frames behind its memory, if we may ourselves.
    void show_frames(Reply<void> done);
    /// Lets a confined process see the host again, if it does not; it must own its machine by what
    /// others say (HR-8).
    void let_out(Reply<void> done);
    /// What it claims for itself in a record.
    [[nodiscard]] handover::InstanceId instance() const noexcept;
    /// Asks for the status; vmm_changed follows when it has come.
    void refresh_status(Reply<void> done);
    /// SIGKILL. The end is reported as any other.
    void kill(std::string_view why);

  private:
    VmmInstance(sys::EventLoop& loop,
                const RunDirectory& run,
                std::string machine,
                std::string id,
                sys::Process process,
                VmmWatcher& watcher);
    void refused(const std::string& what);
    [[nodiscard]] Status watch_process();
    [[nodiscard]] Status
    expect_ready(sys::Fd pipe, std::chrono::milliseconds time_max, Reply<void>& ready);
    void read_ready();
    void ready_decided(Status outcome);
    void connect_or_retry();
    [[nodiscard]] Status connect();
    void connected_now(std::shared_ptr<VmmClient> client);
    void fetch_record();
    void retry_later();
    void process_ended();

    sys::EventLoop& loop_;
    const RunDirectory& run_;
    const std::string machine_;
    const std::string id_;
    sys::Process process_;
    VmmWatcher& watcher_;
    bool alive_ = true;
    std::optional<VmmStatus> status_;
    std::string trouble_ = "not connected yet";
    std::shared_ptr<handover::OwnerRecord> record_;
    std::shared_ptr<VmmClient> client_;

    std::unique_ptr<ServicePartition> partition_; ///< Null if it is in none, or was adopted.
    std::string partition_reason_ = "it was started without one";
    bool let_out_asked_ = false;

    sys::Fd ready_pipe_;
    std::string ready_text_;
    Reply<void> ready_;
    std::chrono::milliseconds retry_after_{0};
    sys::EventLoop::Handle ready_watch_;
    sys::EventLoop::Handle ready_timer_;
    sys::EventLoop::Handle process_watch_;
    sys::EventLoop::Handle retry_timer_;
};

/// 8 hex digits nobody can foresee.
[[nodiscard]] Result<std::string> fresh_instance_id();

} // namespace godwit::control
