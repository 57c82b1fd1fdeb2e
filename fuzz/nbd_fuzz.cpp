// An NBD client that says anything: the negotiation, in pieces, and what comes behind it as
// commands against a disk of 1 MiB. The first byte chooses the pieces' size and whether the disk is
// read-only.

#include "doors/nbd/command.h"
#include "doors/nbd/negotiation.h"
#include "input.h"

using namespace godwit;
using doors::nbd::Negotiation;

namespace {

constexpr std::uint64_t disk_bytes = 1U << 20U;

void run_commands(std::span<const std::byte> in, bool read_only) {
    const block::BlockGeometry geometry{.bytes = disk_bytes, .read_only = read_only};
    while (in.size() >= doors::nbd::request_bytes) {
        const auto command = doors::nbd::read_command(in);
        if (!command.has_value()) {
            return;
        }
        in = in.subspan(doors::nbd::request_bytes);
        block::BlockRequest request;
        const doors::nbd::Failure failure =
            command->type == doors::nbd::CommandType::block_status
                ? doors::nbd::check_status(*command, geometry)
                : doors::nbd::to_request(*command, geometry, request);
        // What is let through is good for the disk.
        const bool moves = request.operation == block::BlockOperation::read ||
                           request.operation == block::BlockOperation::write;
        std::byte somewhere{};
        const iovec segment{.iov_base = &somewhere, .iov_len = request.bytes};
        request.segments = std::span(&segment, moves ? 1 : 0);
        if (failure == doors::nbd::Failure::none &&
            command->type != doors::nbd::CommandType::block_status) {
            GODWIT_ASSERT(block::validate(request, geometry).has_value());
        }
        for (const auto form : {doors::nbd::ReplyForm::simple, doors::nbd::ReplyForm::structured}) {
            GODWIT_ASSERT(doors::nbd::plain_reply(*command, form, failure).size <= 32);
            GODWIT_ASSERT(doors::nbd::read_reply(*command, form).size <= 32);
        }
        in = in.subspan(std::min<std::size_t>(in.size(), command->payload_bytes()));
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    const auto choice = input.take<std::uint8_t>();
    const std::size_t piece = 1 + choice % 64;
    const auto bytes = input.take_bytes(size);
    const std::span<const std::byte> in = std::as_bytes(bytes);
    Negotiation negotiation({.name = "disk", .bytes = disk_bytes, .flags = 1});
    std::size_t taken = 0;
    std::size_t there = 0;
    while (negotiation.phase() != Negotiation::Phase::transmission) {
        const auto more = negotiation.take(in.subspan(taken, there - taken));
        if (!more.has_value() || negotiation.phase() == Negotiation::Phase::ended) {
            return 0;
        }
        taken += *more;
        negotiation.output().clear();
        if (*more == 0) {
            if (there == in.size()) {
                return 0;
            }
            there = std::min(in.size(), there + piece);
        }
    }
    run_commands(in.subspan(taken), (choice & 0x80U) != 0);
    return 0;
}
