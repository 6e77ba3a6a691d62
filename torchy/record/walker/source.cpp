#include "source.h"

namespace torchy {

int64_t Lines::caller() {
  Object frame = Object::borrowed(PyEval_GetFrame());
  while (frame) {
    const Object code = Object::owned(PyFrame_GetCode(frame.get()));
    const Kind kind = kind_of(code.get());
    if (kind == Kind::kProgram) return note(code.get(), PyFrame_GetLasti(frame.get()));
    if (kind == Kind::kLibrary) break;
    frame = Object::owned(PyFrame_GetBack(frame.get()));
  }
  return kUnknown;
}

int64_t Lines::here() {
  Object frame = Object::borrowed(PyEval_GetFrame());
  PyObject* code = nullptr;
  int instruction = 0;
  while (frame) {
    const Object own = Object::owned(PyFrame_GetCode(frame.get()));
    const Kind kind = kind_of(own.get());
    if (kind == Kind::kProgram || (kind == Kind::kLibrary && !code)) {
      code = own.get();  // known by now, hence kept
      instruction = PyFrame_GetLasti(frame.get());
      if (kind == Kind::kProgram) break;
    }
    frame = Object::owned(PyFrame_GetBack(frame.get()));
  }
  return code ? note(code, instruction) : kUnknown;
}

int64_t Lines::origin(int64_t line) {
  if (line < 0 || static_cast<size_t>(line) >= lines_.size()) return kUnknown;  // or forgotten
  int64_t& origin = lines_.at(static_cast<size_t>(line)).origin;
  if (origin == kUnknown)
    origin = origins_.emplace(tell(line), static_cast<int64_t>(origins_.size())).first->second;
  return origin;
}

void Lines::clear() {
  lines_.clear();
  numbers_.clear();
  codes_.clear();
  origins_.clear();
}

Lines::Kind Lines::kind_of(PyObject* code) {
  const auto known = codes_.find(code);
  if (known != codes_.end()) return known->second.kind;
  const std::string file = file_of(code);
  auto within = [&](const std::vector<std::string>& folders) {
    return std::any_of(folders.begin(), folders.end(),
                       [&](const std::string& folder) { return file.starts_with(folder); });
  };
  const Kind kind = within(own_)         ? Kind::kOwn
                    : within(libraries_) ? Kind::kLibrary
                                         : Kind::kProgram;
  codes_.emplace(code, Code{Object::borrowed(code), kind});
  return kind;
}

int64_t Lines::note(PyObject* code, int instruction) {
  const auto [found, fresh] =
      numbers_.emplace(std::pair(code, instruction), static_cast<int64_t>(lines_.size()));
  if (fresh) lines_.push_back({code, instruction});
  return found->second;
}

}  // namespace torchy
