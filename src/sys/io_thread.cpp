#include "sys/io_thread.h"

#include "base/log.h"
#include "sys/thread.h"

namespace godwit::sys {

Result<std::unique_ptr<IoThread>> IoThread::create(const std::string& name) {
    std::unique_ptr<IoThread> made(new IoThread(GODWIT_TRY(EventLoop::create())));
    made->thread_ = start_thread(name, [loop = made->loop_.get()] {
        const Status status = loop->run();
        if (!status.has_value()) {
            log::error("io_thread_stopped", {{"reason", status.error().to_string()}});
        }
    });
    return made;
}

IoThread::~IoThread() {
    loop_->stop();
}

} // namespace godwit::sys
