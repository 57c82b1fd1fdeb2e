#pragma once

/// One NBD client: negotiation, then commands, many at a time and answered in the order they are
/// done. What the client sends is hostile: an error ends the connection, nothing else.
///
/// Thread rule: the disk's loop. The owner calls finish_pass() once per pass of the loop, for
/// everything that came and was done in it; it destroys the connection when it is over().

#include "base/result.h"
#include "block/aligned_buffer.h"
#include "doors/exported_disk.h"
#include "doors/nbd/command.h"
#include "doors/nbd/negotiation.h"
#include "sys/event_loop.h"
#include "sys/fd.h"

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace godwit::doors::nbd {

/// Commands of one client at once, and their payload; more wait on the socket.
inline constexpr std::size_t commands_max = 128;
inline constexpr std::uint64_t commands_bytes_max = 2 * std::uint64_t{payload_bytes_max};

/// What is received at once.
inline constexpr std::size_t input_bytes = std::size_t{256} * 1024;

/// A client nothing of which is in flight, for a successor of this process.
struct SavedConnection {
    sys::Fd socket;
    Negotiation::State negotiation;
    bool reading = true;           ///< More may come of it.
    std::vector<std::byte> input;  ///< Received, not done yet: at most saved_input_bytes_max.
    std::vector<std::byte> output; ///< Not sent yet: at most saved_output_bytes_max.
};
inline constexpr std::size_t saved_input_bytes_max =
    request_bytes + std::size_t{payload_bytes_max} + input_bytes;
/// Payloads of the last command too many, and heads, beside what commands may hold.
inline constexpr std::size_t saved_output_bytes_max = 2 * commands_bytes_max;

class Connection {
  public:
    /// `disk` is this client's view of `exported`.
    [[nodiscard]] static Result<std::unique_ptr<Connection>>
    create(sys::Fd socket, ExportedDisk& exported, Export description);
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    /// Nothing is in flight.
    ~Connection() = default;

    /// A predecessor's client, within the limits above. Nothing happens before rouse().
    [[nodiscard]] static std::unique_ptr<Connection> restore(SavedConnection saved,
                                                             ExportedDisk& exported);

    /// Takes no more commands until rouse(); what was taken goes on.
    void hold() noexcept { held_ = true; }
    [[nodiscard]] bool in_flight() const noexcept { return in_flight_ > 0; }
    /// At rest (held, nothing in flight): copies what a successor needs. Nothing is sent any more
    /// before rouse().
    [[nodiscard]] Result<SavedConnection> save();
    /// Goes on after hold() or restore().
    [[nodiscard]] Status rouse();

    void finish_pass();
    /// Takes no more commands; what was taken is answered.
    void stop_reading();
    /// Neither takes nor answers anything more; what is in flight is waited for by over().
    void abandon();
    /// Nothing more will come of it.
    [[nodiscard]] bool over() const noexcept;
    /// Why it ended, if that was nobody's wish.
    [[nodiscard]] const Status& outcome() const noexcept { return outcome_; }

  private:
    /// A command on its way. They are used again, with their memory.
    struct Job {
        block::BlockRequest block;
        Command command;
        block::AlignedBuffer buffer;
        iovec segment{};
        Failure failure = Failure::none;
        ReplyHead head;
        std::vector<std::byte> extents;  ///< Of a block status.
        std::span<const std::byte> data; ///< What follows the head.
        Connection* connection = nullptr;
    };
    Connection(sys::Fd socket, ExportedDisk& exported, Negotiation negotiation);

    void on_ready(std::uint32_t events);
    void read_all();
    enum class Got : std::uint8_t { nothing, some, all_asked_for };
    [[nodiscard]] Result<Got> read_more();
    [[nodiscard]] Status parse();
    [[nodiscard]] Result<bool> parse_one();
    void begin(const Command& command);
    [[nodiscard]] Job& take_job(const Command& command);
    void submit(Job& job);
    void answer_status(Job& job);
    static void done(block::BlockRequest& block, Status status) noexcept;
    void answer(Job& job);
    void retire(Job& job);
    void send_answers();
    [[nodiscard]] Result<bool> send_some();
    void end(Status outcome);
    void rearm();
    [[nodiscard]] bool may_read() const noexcept;

    ExportedDisk& exported_;
    std::unique_ptr<block::BlockDevice> disk_;
    sys::Fd socket_;
    Negotiation negotiation_;
    Status outcome_;
    bool reading_ = true;    ///< More may come.
    bool held_ = false;      ///< But not now.
    bool frozen_ = false;    ///< What is to be sent belongs to a successor.
    bool broken_ = false;    ///< Nothing can be sent any more.
    bool submitted_ = false; ///< Since the last kick of the disk.

    std::vector<std::byte> input_; ///< What was received and not understood yet: from in_first_ on.
    std::size_t in_first_ = 0;
    std::size_t in_end_ = 0;
    Job* filling_ = nullptr;                              ///< The write whose payload comes.
    std::array<std::byte, request_bytes> filling_head_{}; ///< Its request as it came.
    std::uint64_t filled_bytes_ = 0;                      ///< Of that.

    std::vector<std::unique_ptr<Job>> jobs_;
    std::vector<Job*> idle_;
    std::uint64_t busy_bytes_ = 0;
    std::uint32_t in_flight_ = 0;
    std::deque<Job*> answers_;      ///< To be sent, in this order.
    std::size_t sent_of_first_ = 0; ///< Bytes of the first of them.
    std::uint32_t watched_ = 0;     ///< The events waited for.
    sys::EventLoop::Handle watch_;
};

} // namespace godwit::doors::nbd
