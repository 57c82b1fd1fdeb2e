#include "doors/exchange/export_state.h"
#include "doors/testing/saved_users.h"
#include "state/testing/golden.h"
#include "state/testing/reseal.h"

#include <gtest/gtest.h>

#include <functional>

namespace godwit::doors::exchange {
namespace {

using testing::descriptors_for;
using testing::saved_users;

struct Sent {
    state::SavedState state;
    sys::FdManifest descriptors;
};

Sent send(Users users) {
    Sent sent;
    EXPECT_TRUE(encode(std::move(users), sent.state, sent.descriptors).has_value());
    return sent;
}

TEST(ExportState, WhatIsOfferedComesBack) {
    Offered offered{.options = {},
                    .place = {.path = "/there/disk.raw", .direct = false},
                    .bytes = 1U << 30U,
                    .logical_block_bytes = 512,
                    .nbd_uri = "nbd://host:1/x",
                    .last_move = "{}"};
    offered.options.disk.path = "/here/\xff.raw"; // a name is any bytes
    offered.options.disk.place = "/note";
    offered.options.disk.read_only = true;
    offered.options.disk.profile = "slow";
    offered.options.name = "x";
    offered.options.nbd_address = "host:0";
    offered.options.control = "/run/x.sock";
    offered.options.blk.serial = "serial";
    offered.options.blk.queues = 3;
    const auto back = decode_offered(encode(offered));
    ASSERT_TRUE(back.has_value()) << back.error().to_string();
    EXPECT_EQ(back->place.path, "/there/disk.raw");
    EXPECT_FALSE(back->place.direct);
    EXPECT_EQ(back->bytes, offered.bytes);
    EXPECT_EQ(back->nbd_uri, offered.nbd_uri);
    EXPECT_EQ(back->last_move, "{}");
    EXPECT_EQ(back->options.disk.path, "/here/\xff.raw");
    EXPECT_EQ(back->options.disk.place, "/note");
    EXPECT_TRUE(back->options.disk.read_only);
    EXPECT_TRUE(back->options.disk.direct);
    EXPECT_EQ(back->options.disk.profile, "slow");
    EXPECT_EQ(back->options.control, "/run/x.sock");
    EXPECT_EQ(back->options.blk.serial, "serial");
    EXPECT_EQ(back->options.blk.queues, 3);
}

TEST(ExportState, AnOfferBeyondWhatADiskCanBeIsRefused) {
    const auto refused = [](const std::function<void(Offered&)>& change) {
        Offered offered{.options = {}, .place = {.path = "/x"}, .nbd_uri = "", .last_move = ""};
        offered.options.disk.path = "/x";
        EXPECT_TRUE(decode_offered(encode(offered)).has_value());
        change(offered);
        EXPECT_FALSE(decode_offered(encode(offered)).has_value());
    };
    refused([](Offered& offered) { offered.place.path.clear(); });
    refused([](Offered& offered) { offered.options.disk.path.clear(); });
    refused([](Offered& offered) { offered.options.name.assign(nbd::name_bytes_max + 1, 'x'); });
    refused([](Offered& offered) { offered.options.blk.queues = 0; });
    refused([](Offered& offered) { offered.options.blk.serial.assign(21, 'x'); });
    state::Section newer =
        encode(Offered{.options = {}, .place = {}, .nbd_uri = "", .last_move = ""});
    newer.version = 2;
    EXPECT_EQ(decode_offered(newer).error().code(), ErrorCode::unsupported);
}

TEST(ExportState, UsersComeBack) {
    Sent sent = send(saved_users());
    const auto back = decode_users(sent.state, sent.descriptors);
    ASSERT_TRUE(back.has_value()) << back.error().to_string();
    const Users wanted = saved_users();
    ASSERT_TRUE(back->front_end.has_value());
    const vhost::SavedSession& session = back->front_end->session;
    EXPECT_EQ(session.features, wanted.front_end->session.features);
    EXPECT_EQ(session.protocol_features, wanted.front_end->session.protocol_features);
    ASSERT_EQ(session.regions.size(), 2U);
    EXPECT_EQ(session.regions[1].region.user_address,
              wanted.front_end->session.regions[1].region.user_address);
    ASSERT_EQ(session.rings.size(), 2U);
    EXPECT_EQ(session.rings[0].next_available, 65535);
    EXPECT_EQ(session.rings[0].addresses->used, wanted.front_end->session.rings[0].addresses->used);
    EXPECT_TRUE(session.rings[0].kick.valid());
    EXPECT_FALSE(session.rings[1].addresses.has_value());
    EXPECT_FALSE(session.rings[1].kick.valid());
    EXPECT_EQ(session.inflight->queue_size, 64);
    EXPECT_TRUE(session.inflight_object.valid());
    ASSERT_EQ(back->clients.size(), 2U);
    EXPECT_EQ(back->clients[0].negotiation.phase, nbd::Negotiation::Phase::options);
    EXPECT_EQ(back->clients[0].input, wanted.clients[0].input);
    EXPECT_EQ(back->clients[1].output, wanted.clients[1].output);
    EXPECT_FALSE(back->clients[1].reading);
}

TEST(ExportState, NoUsersAreNone) {
    Sent sent = send({});
    EXPECT_EQ(sent.descriptors.size(), 0U);
    const auto back = decode_users(sent.state, sent.descriptors);
    ASSERT_TRUE(back.has_value());
    EXPECT_FALSE(back->front_end.has_value());
    EXPECT_TRUE(back->clients.empty());
}

TEST(ExportState, AMissingDescriptorIsAnErrorUnlessItMayBeMissing) {
    const Sent whole = send(saved_users());
    for (const std::string& name : whole.descriptors.names()) {
        Sent sent = send(saved_users());
        EXPECT_TRUE(sent.descriptors.take(name).has_value());
        const bool optional = name.starts_with("kick") || name.starts_with("call") ||
                              name.starts_with("error") || name == "backend";
        EXPECT_EQ(decode_users(sent.state, sent.descriptors).has_value(), optional) << name;
    }
}

TEST(ExportState, WhatNobodyNeedsIsAnError) {
    Sent more = send(saved_users());
    ASSERT_TRUE(more.descriptors.add("memory-2", sys::Fd()).has_value());
    EXPECT_EQ(decode_users(more.state, more.descriptors).error().code(), ErrorCode::corrupt);
    Sent gap = send(saved_users());
    ASSERT_TRUE(gap.state.take(client_section.id(0)).has_value()); // the second is never reached
    EXPECT_FALSE(decode_users(gap.state, gap.descriptors).has_value());
}

TEST(ExportState, BytesOfClientsBeyondTheLimitsAreRefused) {
    Users many = saved_users();
    many.clients[0].input.resize(nbd::saved_input_bytes_max + 1);
    Sent sent = send(std::move(many));
    EXPECT_EQ(decode_users(sent.state, sent.descriptors).error().code(), ErrorCode::corrupt);
    // As many as are announced have to be there.
    Sent cut = send(saved_users());
    EXPECT_TRUE(cut.descriptors.take("bytes").has_value());
    ASSERT_TRUE(
        cut.descriptors.add("bytes", GODWIT_MUST(sys::create_memfd("short", 3))).has_value());
    EXPECT_EQ(decode_users(cut.state, cut.descriptors).error().code(), ErrorCode::corrupt);
}

/// The section alone, as it is written.
state::Section section_of(Users users, const state::SectionType& type) {
    return GODWIT_MUST(send(std::move(users)).state.take(type.id())); // it was just written
}

/// Users in whose state every field says something.
Users full_users() {
    Users users = saved_users();
    users.front_end->session.regions[1].region.mapping_offset = 4096;
    users.front_end->session.inflight->offset = 64;
    nbd::SavedConnection client = std::move(users.clients[1]);
    client.negotiation.without_zeroes = true;
    client.negotiation.structured = true;
    client.negotiation.allocation = true;
    client.negotiation.exported.flags = 3;
    client.negotiation.exported.block_bytes_min = 4096;
    client.reading = true;
    client.input.resize(7);
    users.clients.clear();
    users.clients.push_back(std::move(client));
    return users;
}

Users with_front_end() {
    Users users = full_users();
    users.clients.clear();
    return users;
}

Users with_client() {
    Users users = full_users();
    users.front_end.reset();
    return users;
}

/// Reads a section that comes with the descriptors of `like`, and writes it again.
Result<state::Section>
resave(const state::Section& section, const state::SectionType& type, Users like) {
    state::SavedState state;
    GODWIT_TRY(state.add(section));
    sys::FdManifest descriptors = descriptors_for(std::move(like));
    Sent again = send(GODWIT_TRY(decode_users(state, descriptors)));
    return again.state.take(type.id());
}

TEST(ExportState, goldens_of_users_are_read_and_written) {
    EXPECT_EQ(state::testing::check_goldens(section_of(with_front_end(), front_end_section),
                                            [](const state::Section& section) {
                                                return resave(
                                                    section, front_end_section, with_front_end());
                                            }),
              "");
    EXPECT_EQ(state::testing::check_goldens(section_of(with_client(), client_section),
                                            [](const state::Section& section) {
                                                return resave(
                                                    section, client_section, with_client());
                                            }),
              "");
}

TEST(ExportState, goldens_of_offers_are_read_and_written) {
    Offered offered{.options = {},
                    .place = {.path = "/there", .direct = true},
                    .bytes = 1U << 20U,
                    .logical_block_bytes = 512,
                    .nbd_uri = "nbd://host:1/x",
                    .last_move = "{}"};
    ServeOptions& options = offered.options;
    options.disk = {
        .path = "/here", .place = "/note", .read_only = true, .direct = true, .profile = "/slow"};
    options.vhost_socket = "/vhost";
    options.nbd_address = "host:0";
    options.name = "x";
    options.control = "/control";
    options.blk = {.instance = 0, .serial = "serial", .queues = 3, .queue_size = 64};
    EXPECT_EQ(state::testing::check_goldens(encode(offered),
                                            [](const state::Section& section) {
                                                const auto read = decode_offered(section);
                                                return read.has_value()
                                                           ? Result<state::Section>(encode(*read))
                                                           : read.error();
                                            }),
              "");
}

/// Reads a state that was damaged, with its checksums made right.
bool accepted(std::string bytes) {
    state::testing::reseal(bytes);
    auto state = state::SavedState::decode(std::as_bytes(std::span(bytes)));
    if (!state.has_value()) {
        return false;
    }
    sys::FdManifest descriptors = descriptors_for(saved_users());
    return decode_users(*state, descriptors).has_value();
}

TEST(ExportState, EveryPrefixIsRefused) {
    const std::string bytes = send(saved_users()).state.encode();
    ASSERT_TRUE(accepted(bytes));
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        EXPECT_FALSE(accepted(bytes.substr(0, length))) << length;
    }
}

TEST(ExportState, AnyByteMayBeAnother) {
    const std::string bytes = send(saved_users()).state.encode();
    std::size_t refused = 0;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        for (const char flip : {'\x01', '\x80', '\xff'}) {
            std::string damaged = bytes;
            damaged[at] = static_cast<char>(damaged[at] ^ flip);
            refused += accepted(std::move(damaged)) ? 0U : 1U; // and nothing breaks
        }
    }
    EXPECT_GT(refused, bytes.size());
}

} // namespace
} // namespace godwit::doors::exchange
