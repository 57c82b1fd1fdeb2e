#pragma once

/// One move, or merge, of a disk as godwitd sees it: an operation whose work is done by the
/// machine's VMM, which goes on without us. Begun here, or found at a VMM by the next godwitd.
///
///     starting --the VMM has begun--> following --it says what became of it--> over
///         \--refused--> over              \--its process is gone--> over, told by the document
///
/// Control thread only.

#include "control/json_text.h"
#include "control/reply.h"
#include "sys/event_loop.h"

#include <cstdint>
#include <memory>
#include <string>

namespace godwit::control {

class Supervisor;

/// What is done to a disk, in the words of its VMM (docs/formats/vmm-control.md).
struct DiskWork {
    const char* operation; ///< Kind of our operation, and of the report.
    const char* method;
    const char* member; ///< Of a disk: how far it is.
    const char* last;   ///< And the last report.
    const char* done;   ///< The outcome that was wanted.
};
inline constexpr DiskWork disk_move_work{.operation = "disk-move",
                                         .method = "disk_move",
                                         .member = "move",
                                         .last = "last_move",
                                         .done = "moved"};
/// Finds out what moving would cost, and moves nothing.
inline constexpr DiskWork disk_estimate_work{.operation = "disk-estimate",
                                             .method = "disk_estimate",
                                             .member = "move",
                                             .last = "last_move",
                                             .done = "estimated"};
inline constexpr DiskWork disk_merge_work{.operation = "disk-merge",
                                          .method = "disk_merge",
                                          .member = "merge",
                                          .last = "last_merge",
                                          .done = "merged"};

class DiskMoveRun : public std::enable_shared_from_this<DiskMoveRun> {
  public:
    DiskMoveRun(Supervisor& supervisor,
                std::string machine,
                std::string disk,
                const DiskWork& work,
                Reply<Json> end);
    ~DiskMoveRun();

    /// Has the VMM begin it; `params` as its control method takes them.
    void start(std::uint64_t operation, const Json& params);
    /// Follows one that goes on already; `move` is what the VMM says of it.
    void follow(std::uint64_t operation, const Json& move);
    [[nodiscard]] Status cancel();
    /// What the VMM said last.
    [[nodiscard]] const Json& last() const noexcept { return *last_; }
    /// There is news at the VMM.
    void look();
    /// The VMM is gone, before the machine's directory is.
    void owner_gone();

    [[nodiscard]] std::uint64_t operation() const noexcept { return operation_; }
    [[nodiscard]] const DiskWork& work() const noexcept { return work_; }
    /// Whether the source would be complete if the VMM ended now.
    [[nodiscard]] bool safe() const noexcept { return safe_; }

  private:
    void watch();
    void looked(const Result<Json>& answer);
    void told(const Json& move);
    void lies_at(Json& report) const;
    void merged_into(Json& report) const;
    [[nodiscard]] Error failure(const Json& report) const;
    void finish(Json report);
    void refused(const Error& error);
    void leave();

    Supervisor& supervisor_;
    const std::string machine_;
    const std::string disk_;
    const DiskWork& work_; ///< Lives for ever.
    std::uint64_t operation_ = 0;
    std::uint64_t id_ = 0;       ///< The VMM's name for it; 0: not begun.
    std::unique_ptr<Json> last_; ///< What the VMM said last; never null.
    bool safe_ = true;
    bool asking_ = false;
    bool over_ = false;
    std::unique_ptr<Reply<Json>>
        end_; ///< Never null; gets the report of what was done, or why it was not.
    sys::EventLoop::Handle timer_;
};

} // namespace godwit::control
