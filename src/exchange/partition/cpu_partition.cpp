#include "exchange/partition/cpu_partition.h"

#include "sys/fd.h"

#include <sys/stat.h>

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <sstream>
#include <system_error>

namespace godwit::exchange::partition {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t cgroup_file_bytes_max = 64 * 1024;
constexpr std::size_t threads_max = 65536;
constexpr int placing_rounds_max = 16;

/// cgroup files take a whole value in one write.
Status write_value(const std::string& path, const std::string& value) {
    const sys::Fd fd = GODWIT_TRY(sys::open(path, O_WRONLY));
    const ssize_t n = ::write(fd.raw(), value.data(), value.size());
    if (n != static_cast<ssize_t>(value.size())) {
        return Error::from_errno(n < 0 ? errno : EIO, "write '" + value + "' to '" + path + "'");
    }
    return ok();
}

Status make_folder(const std::string& path) {
    if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
        return Error::from_errno(errno, "create the cgroup '" + path + "'");
    }
    return ok();
}

bool lists_cpuset(const std::string& root) {
    const auto controllers = sys::read_file(root + "/cgroup.controllers", cgroup_file_bytes_max);
    return controllers.has_value() && (" " + *controllers).find(" cpuset") != std::string::npos;
}

Status check_name(const std::string& name) {
    const bool good = !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-';
    });
    if (!good) {
        return Error(ErrorCode::invalid_argument,
                     "a CPU partition's name has letters, digits and '-'");
    }
    return ok();
}

/// The thread ids of a process.
Result<std::vector<std::int32_t>> threads_of(std::int32_t pid) {
    std::error_code failed;
    std::vector<std::int32_t> threads;
    for (fs::directory_iterator at("/proc/" + std::to_string(pid) + "/task", failed), end;
         !failed && at != end && threads.size() < threads_max;
         at.increment(failed)) {
        const std::string name = at->path().filename().string();
        std::int32_t id = 0;
        if (std::from_chars(name.data(), name.data() + name.size(), id).ec == std::errc()) {
            threads.push_back(id);
        }
    }
    if (failed) {
        return Error(ErrorCode::not_found,
                     "list the threads of process " + std::to_string(pid) + ": " +
                         failed.message());
    }
    return threads;
}

Status set_affinity(std::int32_t thread, const CpuSet& cpus) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    for (const std::uint32_t cpu : cpus) {
        CPU_SET(cpu, &mask);
    }
    if (::sched_setaffinity(thread, sizeof(mask), &mask) != 0 && errno != ESRCH) {
        return Error::from_errno(errno, "let a thread run on CPUs " + to_string(cpus));
    }
    return ok();
}

/// Repeats until a round finds no new thread: one that was being created has the old set.
Status place_threads(std::int32_t pid, const CpuSet& cpus) {
    std::vector<std::int32_t> placed;
    for (int round = 0; round < placing_rounds_max; ++round) {
        bool is_new = false;
        for (const std::int32_t thread : GODWIT_TRY(threads_of(pid))) {
            if (std::ranges::find(placed, thread) == placed.end()) {
                GODWIT_TRY(set_affinity(thread, cpus));
                placed.push_back(thread);
                is_new = true;
            }
        }
        if (!is_new) {
            return ok();
        }
    }
    return Error(ErrorCode::busy,
                 "process " + std::to_string(pid) + " makes threads faster than they are placed");
}

} // namespace

std::string_view name_of(CpuMechanism mechanism) noexcept {
    switch (mechanism) {
    case CpuMechanism::cgroup2:
        return "cgroup-v2";
    case CpuMechanism::cgroup1:
        return "cgroup-v1";
    case CpuMechanism::affinity:
        return "affinity";
    }
    return "unknown";
}

CpuPartition::CpuPartition(CpuPartition&& from) noexcept
    : mechanism_(from.mechanism_), folder_(std::exchange(from.folder_, {})),
      note_(std::move(from.note_)), cpus_(std::move(from.cpus_)),
      processes_(std::move(from.processes_)) {}

CpuPartition& CpuPartition::operator=(CpuPartition&& from) noexcept {
    if (this != &from) {
        remove();
        mechanism_ = from.mechanism_;
        folder_ = std::exchange(from.folder_, {});
        note_ = std::move(from.note_);
        cpus_ = std::move(from.cpus_);
        processes_ = std::move(from.processes_);
    }
    return *this;
}

CpuPartition::~CpuPartition() {
    remove();
}

void CpuPartition::remove() noexcept {
    if (!folder_.empty()) {
        // Refused while processes are in it; whoever adopts them finds it by name.
        ::rmdir(folder_.c_str());
        folder_.clear();
    }
}

namespace {

/// Moves whoever is left in a cgroup to its parent and removes it. Again where processes start
/// others meanwhile.
void dissolve(const std::string& folder) {
    const std::string parent = folder.substr(0, folder.rfind('/'));
    for (int round = 0; round < placing_rounds_max && ::rmdir(folder.c_str()) != 0; ++round) {
        const Result<std::string> text =
            sys::read_file(folder + "/cgroup.procs", cgroup_file_bytes_max);
        if (!text.has_value()) {
            return;
        }
        std::istringstream processes(*text);
        for (std::string process; std::getline(processes, process);) {
            discard(write_value(parent + "/cgroup.procs", process), "it may have ended");
        }
    }
}

} // namespace

void CpuPartition::remove_left(const std::string& name, const CpuRoots& roots) noexcept {
    if (!check_name(name).has_value()) {
        return;
    }
    for (const std::string& root : roots.unified) {
        dissolve(root + "/" + name);
    }
    dissolve(roots.cpuset_v1 + "/" + name);
}

std::vector<std::string> CpuPartition::names_of(std::int32_t pid, std::string_view prefix) {
    std::vector<std::string> names;
    const Result<std::string> text =
        sys::read_file("/proc/" + std::to_string(pid) + "/cgroup", cgroup_file_bytes_max);
    // Lines like "5:cpuset:/name" (cgroups(7)); ours lie at the top.
    std::istringstream lines(text.value_or(std::string()));
    for (std::string line; std::getline(lines, line);) {
        const std::size_t at = line.find(":/");
        if (at == std::string::npos) {
            continue;
        }
        std::string name = line.substr(at + 2);
        if (name.starts_with(prefix) && check_name(name).has_value()) {
            names.push_back(std::move(name));
        }
    }
    return names;
}

Status CpuPartition::try_cgroup2(const std::string& name, const CpuRoots& roots) {
    const auto root = std::ranges::find_if(roots.unified, lists_cpuset);
    if (root == roots.unified.end()) {
        return Error(ErrorCode::unsupported, "cgroup v2 has no cpuset controller here");
    }
    GODWIT_TRY(write_value(*root + "/cgroup.subtree_control", "+cpuset"));
    const std::string folder = *root + "/" + name;
    GODWIT_TRY(make_folder(folder));
    const Status set = write_value(folder + "/cpuset.cpus", to_string(cpus_));
    if (!set.has_value()) {
        ::rmdir(folder.c_str());
        return set.error();
    }
    folder_ = folder;
    mechanism_ = CpuMechanism::cgroup2;
    // "root" takes the CPUs out of the parent's set. Where others use them it stays a member, which
    // still keeps our processes in.
    if (const Status isolated = write_value(folder + "/cpuset.cpus.partition", "root");
        !isolated.has_value()) {
        note_ = "not exclusive: " + isolated.error().to_string();
    }
    return ok();
}

Status CpuPartition::try_cgroup1(const std::string& name, const CpuRoots& roots) {
    const auto nodes = sys::read_file(roots.cpuset_v1 + "/cpuset.mems", cgroup_file_bytes_max);
    if (!nodes.has_value()) {
        return Error(ErrorCode::unsupported, "there is no cpuset hierarchy of cgroup v1");
    }
    const std::string folder = roots.cpuset_v1 + "/" + name;
    GODWIT_TRY(make_folder(folder));
    // Memory nodes first: a v1 cpuset without them takes no process.
    Status set = write_value(folder + "/cpuset.mems", nodes->substr(0, nodes->find('\n')));
    if (set.has_value()) {
        set = write_value(folder + "/cpuset.cpus", to_string(cpus_));
    }
    if (!set.has_value()) {
        ::rmdir(folder.c_str());
        return set.error();
    }
    folder_ = folder;
    mechanism_ = CpuMechanism::cgroup1;
    return ok();
}

Result<CpuPartition>
CpuPartition::create(const std::string& name, const CpuSet& cpus, const CpuRoots& roots) {
    GODWIT_TRY(check_name(name));
    if (cpus.empty()) {
        return Error(ErrorCode::invalid_argument, "a CPU partition has at least one CPU");
    }
    CpuPartition partition;
    partition.cpus_ = cpus;
    const Status second = partition.try_cgroup2(name, roots);
    if (second.has_value()) {
        return partition;
    }
    const Status first = partition.try_cgroup1(name, roots);
    partition.note_ = second.error().to_string();
    if (!first.has_value()) {
        partition.note_ += "; " + first.error().to_string() +
                           "; CPUs are divided by affinity, which nothing enforces";
    }
    return partition;
}

Status CpuPartition::add_process(std::int32_t pid) {
    if (mechanism_ != CpuMechanism::affinity) {
        return write_value(folder_ + "/cgroup.procs", std::to_string(pid));
    }
    GODWIT_TRY(place_threads(pid, cpus_));
    processes_.push_back(pid);
    return ok();
}

Status CpuPartition::set_cpus(const CpuSet& cpus) {
    if (cpus.empty()) {
        return Error(ErrorCode::invalid_argument, "a CPU partition has at least one CPU");
    }
    if (mechanism_ != CpuMechanism::affinity) {
        GODWIT_TRY(write_value(folder_ + "/cpuset.cpus", to_string(cpus)));
    } else {
        for (const std::int32_t pid : processes_) {
            // A process that has ended needs no CPU.
            if (::access(("/proc/" + std::to_string(pid)).c_str(), F_OK) == 0) {
                GODWIT_TRY(place_threads(pid, cpus));
            }
        }
    }
    cpus_ = cpus;
    return ok();
}

Result<CpuSet> allowed_cpus(std::int32_t pid) {
    CpuSet cpus;
    for (const std::int32_t thread : GODWIT_TRY(threads_of(pid))) {
        cpu_set_t mask;
        CPU_ZERO(&mask);
        if (::sched_getaffinity(thread, sizeof(mask), &mask) != 0) {
            return Error::from_errno(errno, "ask where a thread may run");
        }
        for (std::uint32_t cpu = 0; cpu < cpu_numbers_max; ++cpu) {
            if (CPU_ISSET(cpu, &mask)) {
                cpus.insert(cpu);
            }
        }
    }
    return cpus;
}

} // namespace godwit::exchange::partition
