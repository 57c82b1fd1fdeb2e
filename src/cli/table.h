#pragma once

/// Rows of text in aligned columns. Values.

#include <string>
#include <vector>

namespace godwit::cli {

class Table {
  public:
    explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
    /// Missing cells are empty; control characters are shown as '?'.
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    /// Columns two spaces apart, no blanks at line ends.
    [[nodiscard]] std::string to_string() const;

  private:
    std::vector<std::vector<std::string>> rows_;
};

/// Text from elsewhere made safe for a terminal: control characters become '?'.
[[nodiscard]] std::string printable(std::string text);

} // namespace godwit::cli
