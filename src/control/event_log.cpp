#include "control/event_log.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>

namespace godwit::control {

std::string time_text(std::int64_t unix_nanoseconds) {
    const std::time_t seconds = unix_nanoseconds / 1'000'000'000;
    const auto milliseconds = static_cast<int>(unix_nanoseconds / 1'000'000 % 1000);
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    std::array<char, 32> date{};
    std::array<char, 40> text{};
    std::strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &parts);
    std::snprintf(text.data(), text.size(), "%s.%03dZ", date.data(), milliseconds);
    return text.data();
}

EventLog::EventLog(const sys::Clock& clock, std::size_t kept_max)
    : clock_(clock), kept_max_(kept_max),
      forgotten_until_(static_cast<std::uint64_t>(clock.unix_nanoseconds() / 1000) - 1) {}

std::uint64_t
EventLog::append(std::string_view type, std::string_view machine, const Json& details) {
    const std::int64_t now = clock_.unix_nanoseconds();
    Json body = details.is_object() ? details : Json::object();
    body["event"] = type;
    body["time"] = time_text(now);
    if (!machine.empty()) {
        body["machine"] = machine;
    }
    const std::lock_guard lock(mutex_);
    last_id_ =
        std::max({last_id_ + 1, forgotten_until_ + 1, static_cast<std::uint64_t>(now / 1000)});
    body["id"] = last_id_;
    events_.push_back({.id = last_id_, .type = std::string(type), .json = json_text(body)});
    while (events_.size() > kept_max_) {
        forgotten_until_ = events_.front().id;
        events_.pop_front();
    }
    changed_.notify_all();
    return last_id_;
}

EventLog::Batch
EventLog::read(std::uint64_t since, std::size_t count_max, std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(
        lock, timeout, [&] { return closed_ || (!events_.empty() && events_.back().id > since); });
    Batch batch;
    batch.gap = since < forgotten_until_;
    batch.closed = closed_;
    auto at = std::ranges::upper_bound(events_, since, {}, &Event::id);
    for (; at != events_.end() && batch.events.size() < count_max; ++at) {
        batch.events.push_back(*at);
    }
    return batch;
}

std::uint64_t EventLog::newest() const {
    const std::lock_guard lock(mutex_);
    return std::max(last_id_, forgotten_until_);
}

void EventLog::close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
}

} // namespace godwit::control
