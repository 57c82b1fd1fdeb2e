#pragma once

/// Bodies of the requests that exchange or plan (docs/api/openapi.yaml), from JSON that anybody may
/// have sent: every error is invalid_argument and names the member. Pure functions; any thread.

#include "control/json_text.h"
#include "control/supervisor.h"

namespace godwit::control {

[[nodiscard]] Result<Supervisor::ExchangeRequest> read_exchange_request(const Json& body);
[[nodiscard]] Result<Supervisor::ExchangeAllRequest> read_exchange_all_request(const Json& body);
/// As read_exchange_all_request(), and "machine" for a plan of one.
[[nodiscard]] Result<Supervisor::ExchangeAllRequest> read_plan_request(Json body);
[[nodiscard]] Result<Supervisor::SuspendRequest> read_suspend_request(const Json& body);

} // namespace godwit::control
