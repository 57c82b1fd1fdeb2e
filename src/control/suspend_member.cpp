#include "control/suspend_member.h"

#include <nlohmann/json.hpp>

namespace godwit::control {

std::vector<std::string> SuspendRun::Member::blockers() const {
    if (!blocked.empty()) {
        return {blocked};
    }
    std::vector<std::string> found;
    if (source_report->is_object() && source_report->contains("blockers") &&
        (*source_report)["blockers"].is_array()) {
        for (const Json& blocker : (*source_report)["blockers"]) {
            if (blocker.is_string()) {
                found.push_back(blocker.get<std::string>());
            }
        }
    }
    if (found.empty() && !trouble.empty()) {
        found.push_back(trouble);
    }
    return found;
}

Json SuspendRun::Member::to_json() const {
    const auto id_of = [](const std::shared_ptr<VmmInstance>& vmm) {
        return vmm == nullptr ? std::string() : vmm->id();
    };
    return {{"operation", "exchange"},
            {"mode", name_of(ExchangeMode::suspend)},
            {"machine", name},
            {"outcome", frozen ? "frozen" : "rolled_back"},
            {"reason", trouble},
            {"blockers", blockers()},
            {"committed", is_committed()},
            {"source", id_of(source)},
            {"keeper", id_of(keeper)},
            {"successor", id_of(successor)},
            {"old", *source_report}};
}

std::vector<std::string> SuspendRun::blockers() const {
    std::vector<std::string> all = host_blockers_;
    for (const auto& member : members_) {
        for (const std::string& blocker : member->blockers()) {
            all.push_back("machine '" + member->name + "': " + blocker);
        }
    }
    return all;
}

} // namespace godwit::control
