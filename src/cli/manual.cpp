#include "cli/manual.h"

#include "base/version.h"

#include <CLI/CLI.hpp>

#include <sstream>
#include <string_view>
#include <vector>

namespace godwit::cli {

namespace {

/// Text as man(7) shows it literally.
std::string escaped(std::string_view text) {
    std::string out;
    bool line_start = true;
    for (const char c : text) {
        if (line_start && (c == '.' || c == '\'')) {
            out += "\\&";
        }
        if (c == '\\') {
            out += "\\e";
        } else if (c == '-') {
            out += "\\-";
        } else {
            out += c;
        }
        line_start = c == '\n';
    }
    return out;
}

bool hidden(const CLI::App& app) {
    return app.get_group().empty();
}

std::vector<const CLI::App*> visible_commands(const CLI::App& app) {
    std::vector<const CLI::App*> commands;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (!hidden(*command)) {
            commands.push_back(command);
        }
    }
    return commands;
}

std::string type_of(const CLI::Option& option) {
    return option.get_items_expected_max() == 0 ? std::string() : option.get_type_name();
}

/// "--disk DISK", "--follow, -f"
std::string names_of(const CLI::Option& option) {
    std::string names;
    for (const std::string& name : option.get_lnames()) {
        names += (names.empty() ? "--" : ", --") + name;
    }
    for (const std::string& name : option.get_snames()) {
        names += ", -" + name;
    }
    const std::string type = type_of(option);
    return type.empty() ? names : names + " " + type;
}

void add_option(std::ostringstream& out, const CLI::Option& option) {
    const std::string shown = option.get_positional() ? option.get_name(true) : names_of(option);
    out << ".TP\n\\fB" << escaped(shown) << "\\fR\n" << escaped(option.get_description()) << "\n";
}

void add_options(std::ostringstream& out, const CLI::App& app) {
    for (const CLI::Option* option : app.get_options()) {
        add_option(out, *option);
    }
}

std::string synopsis_of(const CLI::App& app, const std::string& name) {
    std::string line = ".B " + escaped(name) + "\n[\\fIoptions\\fR]";
    for (const CLI::Option* option : app.get_options()) {
        if (option->get_positional()) {
            line += " \\fI" + escaped(option->get_name(true)) + "\\fR";
        }
    }
    return line + (visible_commands(app).empty() ? "\n" : " \\fIcommand\\fR\n");
}

void add_footer(std::ostringstream& out, const CLI::App& app) {
    const std::string& footer = app.get_footer();
    if (!footer.empty()) {
        out << ".SH NOTES\n.nf\n" << escaped(footer) << "\n.fi\n";
    }
}

std::string dashed(std::string name) {
    for (char& c : name) {
        c = c == ' ' ? '-' : c;
    }
    return name;
}

std::string page(const CLI::App& app, const std::string& name) {
    std::ostringstream out;
    out << ".TH " << dashed(name) << " 1 \"\" \"Godwit " << version() << "\" \"Godwit\"\n"
        << ".SH NAME\n"
        << escaped(dashed(name)) << " \\- " << escaped(app.get_description()) << "\n"
        << ".SH SYNOPSIS\n"
        << synopsis_of(app, name) << ".SH OPTIONS\n";
    add_options(out, app);
    const auto commands = visible_commands(app);
    if (!commands.empty()) {
        out << ".SH COMMANDS\n";
        for (const CLI::App* command : commands) {
            out << ".TP\n\\fB" << escaped(name + " " + command->get_name()) << "\\fR\n"
                << escaped(command->get_description()) << "\n";
        }
    }
    add_footer(out, app);
    out << ".SH SEE ALSO\n";
    if (app.get_parent() != nullptr) {
        out << ".BR godwit (1)\n";
    } else {
        for (std::size_t i = 0; i < commands.size(); ++i) {
            out << ".BR " << escaped(name + "-" + commands[i]->get_name()) << " (1)"
                << (i + 1 < commands.size() ? "," : "") << "\n";
        }
    }
    return out.str();
}

void add_pages(std::map<std::string, std::string>& pages,
               const CLI::App& app,
               const std::string& name) {
    pages[dashed(name) + ".1"] = page(app, name);
    for (const CLI::App* command : visible_commands(app)) {
        add_pages(pages, *command, name + " " + command->get_name());
    }
}

/// All flags of a command, with those of its parents.
std::string flags_of(const CLI::App& app) {
    std::string flags;
    for (const CLI::App* at = &app; at != nullptr; at = at->get_parent()) {
        for (const CLI::Option* option : at->get_options()) {
            for (const std::string& name : option->get_lnames()) {
                flags += (flags.empty() ? "--" : " --") + name;
            }
        }
    }
    return flags;
}

void add_cases(std::ostringstream& out, const CLI::App& app, const std::string& path) {
    std::string words = flags_of(app);
    for (const CLI::App* command : visible_commands(app)) {
        words.append(" ").append(command->get_name());
    }
    bool names_machine = false;
    for (const CLI::Option* option : app.get_options()) {
        names_machine =
            names_machine || (option->get_positional() && option->get_name(true) == "NAME");
    }
    out << "        '" << path << "') words='" << words
        << "'; machines=" << (names_machine && path != " run" ? "1" : "0") << ";;\n";
    for (const CLI::App* command : visible_commands(app)) {
        add_cases(out, *command, path + " " + command->get_name());
    }
}

/// Words that are commands, separated by '|', for the pattern that recognises them.
std::string command_words(const CLI::App& app) {
    std::string words;
    for (const CLI::App* command : visible_commands(app)) {
        words += (words.empty() ? "" : "|") + command->get_name();
        const std::string inner = command_words(*command);
        words += inner.empty() ? "" : "|" + inner;
    }
    return words;
}

} // namespace

std::map<std::string, std::string> manual_pages(const CLI::App& app) {
    std::map<std::string, std::string> pages;
    add_pages(pages, app, app.get_name());
    return pages;
}

std::string bash_completion(const CLI::App& app) {
    std::ostringstream out;
    out << "# bash completion for godwit; made by `godwit completion bash`\n"
           "_godwit() {\n"
           "    local word path='' words='' machines=0 current=${COMP_WORDS[COMP_CWORD]} "
           "previous=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
           "        case $word in "
        << command_words(app)
        << ") path+=\" $word\";; esac\n"
           "    done\n"
           "    case $path in\n";
    add_cases(out, app, "");
    out << "    esac\n"
           "    case $previous in\n"
           "        --serial|--console) words='on off'; machines=0;;\n"
           "        --port) words='serial virtio'; machines=0;;\n"
           "        "
           "--kernel|--initrd|--disk|--spec|--memory-file|--to|--run-dir|restore|snapshot)\n"
           "            COMPREPLY=($(compgen -f -- \"$current\")); return;;\n"
           "    esac\n"
           "    if [ \"$machines\" = 1 ] && [[ $current != -* ]]; then\n"
           "        local dir=${GODWIT_RUN_DIR:-}\n"
           "        [ -n \"$dir\" ] || { [ \"$(id -u)\" = 0 ] && dir=/run/godwit; }\n"
           "        [ -n \"$dir\" ] || dir=${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/godwit}\n"
           "        [ -n \"$dir\" ] || dir=/tmp/godwit-$(id -u)\n"
           "        words+=\" $(ls \"$dir/machines\" 2>/dev/null)\"\n"
           "    fi\n"
           "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
           "}\n"
           "complete -F _godwit godwit\n";
    return out.str();
}

} // namespace godwit::cli
