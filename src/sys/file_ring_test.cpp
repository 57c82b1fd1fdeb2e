#include "sys/event_loop.h"
#include "sys/file_ring.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <chrono>

namespace godwit::sys {
namespace {

struct Fixture {
    Fd file;
    std::unique_ptr<FileRing> ring;

    Completion complete_one() {
        std::array<Completion, 4> done{};
        GODWIT_MUST(ring->submit_and_wait()); // The operation is queued.
        EXPECT_EQ(ring->reap(done), 1U);
        return done[0];
    }
};

/// A ring over a memory file of 64 KiB.
Fixture make_fixture() {
    Fd file = GODWIT_MUST(create_memfd("file_ring_test", 65536)); // Room for 64 KiB.
    auto ring = GODWIT_MUST(FileRing::create(file, 4));           // Linux 6.1.
    return {.file = std::move(file), .ring = std::move(ring)};
}

iovec segment(std::string& bytes) {
    return {.iov_base = bytes.data(), .iov_len = bytes.size()};
}

TEST(FileRing, write_then_read_gives_the_same_bytes) {
    Fixture fixture = make_fixture();
    std::string out = "hello";
    const iovec from = segment(out);
    fixture.ring->write(7, {&from, 1}, 100, WriteMode::durable);
    EXPECT_EQ(fixture.complete_one().result, 5);
    std::string in(5, '\0');
    const iovec into = segment(in);
    fixture.ring->read(8, {&into, 1}, 100);
    const Completion read = fixture.complete_one();
    EXPECT_EQ(read.token, 8U);
    EXPECT_EQ(read.result, 5);
    EXPECT_EQ(in, "hello");
}

TEST(FileRing, scattered_write_is_gathered) {
    Fixture fixture = make_fixture();
    std::string one = "one";
    std::string two = "two!";
    const std::array<iovec, 2> from{segment(one), segment(two)};
    fixture.ring->write(1, from, 0, WriteMode::buffered);
    EXPECT_EQ(fixture.complete_one().result, 7);
    std::string in(7, '\0');
    ASSERT_TRUE(pread_exact(fixture.file, std::as_writable_bytes(std::span(in)), 0).has_value());
    EXPECT_EQ(in, "onetwo!");
}

TEST(FileRing, punch_hole_reads_as_zeros) {
    Fixture fixture = make_fixture();
    const std::string ones(8192, '1');
    ASSERT_TRUE(pwrite_all(fixture.file, std::as_bytes(std::span(ones)), 0).has_value());
    fixture.ring->change_space(1, SpaceChange::punch_hole, {.offset = 4096, .bytes = 4096});
    EXPECT_EQ(fixture.complete_one().result, 0);
    std::string in(8192, 'x');
    ASSERT_TRUE(pread_exact(fixture.file, std::as_writable_bytes(std::span(in)), 0).has_value());
    EXPECT_EQ(in, std::string(4096, '1') + std::string(4096, '\0'));
}

TEST(FileRing, refused_operation_completes_with_its_errno) {
    Fixture fixture = make_fixture();
    // tmpfs has no FALLOC_FL_ZERO_RANGE (mm/shmem.c, shmem_fallocate).
    fixture.ring->change_space(1, SpaceChange::zero_range, {.offset = 0, .bytes = 4096});
    EXPECT_EQ(fixture.complete_one().result, -EOPNOTSUPP);
}

/// Runs a loop until `wanted` operations of the fixture's ring are complete.
std::vector<Completion> serve(Fixture& fixture, std::size_t wanted) {
    auto loop = GODWIT_MUST(EventLoop::create()); // Descriptors are there.
    std::vector<Completion> done;
    const auto on_event = [&](std::uint32_t) {
        fixture.ring->disarm();
        do {
            std::array<Completion, 4> batch{};
            const std::size_t count = fixture.ring->reap(batch);
            done.insert(done.end(), batch.begin(), batch.begin() + count);
        } while (!fixture.ring->arm());
        if (done.size() >= wanted) {
            loop->stop();
        }
    };
    auto watch = GODWIT_MUST(loop->watch(fixture.ring->event().fd(), EPOLLIN | EPOLLET, on_event));
    auto limit = GODWIT_MUST(loop->schedule(std::chrono::seconds(20), {}, [&] { loop->stop(); }));
    EXPECT_TRUE(fixture.ring->submit().has_value());
    EXPECT_TRUE(loop->run().has_value());
    return done;
}

TEST(FileRing, immediate_completion_wakes_the_loop) {
    Fixture fixture = make_fixture();
    fixture.ring->nothing(2);
    EXPECT_EQ(fixture.ring->unsubmitted(), 1U);
    EXPECT_EQ(serve(fixture, 1).size(), 1U);
}

TEST(FileRing, completion_by_a_kernel_worker_wakes_the_loop) {
    Fixture fixture = make_fixture();
    fixture.ring->flush(1);
    EXPECT_EQ(serve(fixture, 1).size(), 1U);
    fixture.ring->flush(2);
    EXPECT_EQ(serve(fixture, 1).size(), 1U);
}

TEST(FileRing, create_too_many_entries_is_refused) {
    const Fd file = GODWIT_MUST(create_memfd("file_ring_test", 4096)); // Room for 4 KiB.
    EXPECT_FALSE(FileRing::create(file, file_ring_entries_max + 1).has_value());
}

} // namespace
} // namespace godwit::sys
