#include "doors/place_note.h"

#include "sys/fd.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

namespace godwit::doors {

namespace {

using Json = nlohmann::json;

constexpr const char* format_name = "godwit-export-place";
constexpr std::uint64_t format_version = 1;
constexpr std::string_view suffix = ".place";

Result<std::string> absolute(const std::string& path) {
    std::error_code error;
    const std::filesystem::path given(path);
    const std::filesystem::path whole = std::filesystem::absolute(given, error);
    if (error || path.empty()) {
        return Error(ErrorCode::invalid_argument, "'" + path + "' is no path");
    }
    return whole.lexically_normal().string();
}

std::string text_of(const Json& note, const char* key) {
    const auto found = note.find(key);
    return found != note.end() && found->is_string() ? found->get<std::string>() : std::string();
}

} // namespace

Result<PlaceNote> PlaceNote::of(const std::string& origin, const std::string& path) {
    std::string image = GODWIT_TRY(absolute(origin));
    if (path.empty()) {
        std::string beside = image + std::string(suffix);
        return PlaceNote(std::move(image), std::move(beside), true);
    }
    return PlaceNote(std::move(image), GODWIT_TRY(absolute(path)), false);
}

Result<block::ImagePlace> PlaceNote::read() const {
    const Result<std::string> text = sys::read_file(path_, bytes_max);
    if (!text.has_value()) {
        if (text.error().os_errno() == ENOENT) {
            return block::ImagePlace{.path = origin_, .direct = true};
        }
        return Error(text.error())
            .with_context("'" + path_ + "' may say that the image lies elsewhere now");
    }
    const auto corrupt = [&](const std::string& what) {
        return Error(ErrorCode::corrupt,
                     "'" + path_ + "' should say where the image lies now, but " + what);
    };
    const Json note = Json::parse(*text, nullptr, false);
    if (!note.is_object() || text_of(note, "format") != format_name) {
        return corrupt("is no note of an export's place");
    }
    if (note.value("version", Json()) != Json(format_version)) {
        return corrupt("has a version that is not known here");
    }
    if (text_of(note, "origin") != origin_) {
        return corrupt("is that of '" + text_of(note, "origin") +
                       "': if the image was renamed or copied, the note is not about this one");
    }
    block::ImagePlace place{.path = text_of(note, "image"), .direct = true};
    const Json direct = note.value("direct", Json());
    if (!std::filesystem::path(place.path).is_absolute() || !direct.is_boolean()) {
        return corrupt("names no absolute path, or not how it is opened");
    }
    place.direct = direct.get<bool>();
    return place;
}

Status PlaceNote::write(const block::ImagePlace& now) const {
    const Json note{{"format", format_name},
                    {"version", format_version},
                    {"origin", origin_},
                    {"image", now.path},
                    {"direct", now.direct}};
    const std::string text = note.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
    // A path that is no UTF-8 would be another one when it is read.
    if (Json::parse(text, nullptr, false) != note) {
        return Error(ErrorCode::invalid_argument, "a path that is no UTF-8 cannot be noted");
    }
    return sys::replace_file_durably(path_, text)
        .with_context("where the image lies cannot be noted");
}

Status PlaceNote::check() const {
    struct stat info{};
    if (beside_ && ::stat(origin_.c_str(), &info) == 0 && S_ISBLK(info.st_mode)) {
        return Error(ErrorCode::unsupported,
                     "'" + origin_ +
                         "' is a block device, beside which nothing can be noted for good: serve "
                         "it with --place FILE, which then says where the image lies");
    }
    const std::string directory = std::filesystem::path(path_).parent_path().string();
    if (::access(directory.c_str(), W_OK | X_OK) != 0) {
        return Error::from_errno(errno,
                                 "where the image lies is to be noted in '" + path_ +
                                     "', which cannot be written");
    }
    return ok();
}

} // namespace godwit::doors
