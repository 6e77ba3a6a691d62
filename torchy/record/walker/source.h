// Which line of the program an op comes from: noted as a code object and an instruction in it, and
// told as file and line when somebody asks.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "python.h"

namespace torchy {

// All that is here needs the GIL, which also guards it.
class Lines {
 public:
  static constexpr int64_t kUnknown = -1;

  // Files whose code is not the program's: torch's and Torchy's own, and those of libraries, which
  // count where there is nothing else.
  void set_folders(std::vector<std::string> own, std::vector<std::string> libraries) {
    own_ = std::move(own);
    libraries_ = std::move(libraries);
  }

  // The innermost line of the calling thread that is the program's; or a library's, if there is
  // none.
  int64_t here();

  // The line from which the program itself has called Torchy, without a library in between.
  int64_t caller();

  // The file, and the number in it.
  std::pair<std::string, int> tell(int64_t line) const {
    const Line& known = lines_.at(static_cast<size_t>(line));
    return {file_of(known.code), PyCode_Addr2Line(known.code, known.instruction)};
  }

  // Equal for all code that stands in one line of one file, as when a cell is run again.
  int64_t origin(int64_t line);

  size_t size() const { return codes_.size() + lines_.size(); }

  void clear();

 private:
  enum class Kind { kOwn, kLibrary, kProgram };
  struct Code {
    Object held;  // so that its address stays its own
    Kind kind;
  };
  struct Line {
    PyObject* code;
    int instruction;
    int64_t origin = kUnknown;
  };
  struct Hash {
    size_t operator()(const std::pair<PyObject*, int>& line) const {
      return reinterpret_cast<size_t>(line.first) / 16 * 31 + static_cast<size_t>(line.second);
    }
  };

  static std::string file_of(PyObject* code) {
    const Object name = Object::owned(PyObject_GetAttrString(code, "co_filename"));
    return name ? text_of(name.get()) : std::string();
  }

  Kind kind_of(PyObject* code);

  int64_t note(PyObject* code, int instruction);

  std::vector<std::string> own_, libraries_;
  std::vector<Line> lines_;
  std::unordered_map<PyObject*, Code> codes_;
  std::unordered_map<std::pair<PyObject*, int>, int64_t, Hash> numbers_;
  std::map<std::pair<std::string, int>, int64_t> origins_;
};

inline Lines& lines() {
  static Lines* instance = std::make_unique<Lines>().release();  // lives as long as the process
  return *instance;
}

}  // namespace torchy
