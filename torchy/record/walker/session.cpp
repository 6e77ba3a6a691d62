#include "session.h"

#include "source.h"

namespace torchy {

bool Session::too_large() {
  if (trace->large_bytes < kNoticed && trace->path.size() % 64 != 0) return false;
  // half of what is allowed: the rest is for temporaries of the flush, and the allocator's own
  const size_t needed = weigh();
  if (needed > trace->peak + allowance(*trace) / 2) return true;
  trace->large_bytes = 0;
  return false;
}

bool Session::keeps_much() const {
  if (trace->input_bytes <= allowance(*trace) / 2) return false;
  size_t needed = 0, eager = 0;
  trace->weigh(needed, eager);
  return needed > eager + allowance(*trace) / 2;
}

size_t Session::weigh() {
  size_t needed = 0, eager = 0;
  trace->weigh(needed, eager);
  trace->peak = std::max(trace->peak, eager);
  return needed;
}

Piece Session::since(const Flushes& before) const {
  const Flushes now = flushes();
  const int64_t others = now.all - before.all - (now.repeated - before.repeated);
  if (others == 0) return Piece::kSteady;
  return others > now.settling - before.settling ? Piece::kNew : Piece::kSettling;
}

std::shared_ptr<Session> Registry::find(int64_t id) {
  for (auto& session : sessions)
    if (session->id == id) return session;
  return nullptr;
}

std::shared_ptr<Trace> Registry::empty_trace() {
  if (spare.empty()) return std::make_shared<Trace>();
  std::shared_ptr<Trace> trace = std::move(spare.back());
  spare.pop_back();
  return trace;
}

void Registry::give_back(std::shared_ptr<Trace> trace) {
  constexpr size_t kMost = 4;
  if (!trace || trace.use_count() > 1) return;
  trace->clear();
  const Lock lock(shared_mutex);
  if (spare.size() < kMost) spare.push_back(std::move(trace));
}

int64_t ask(Ask what, int64_t session, int64_t argument, const std::string& text) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("torchy::ask", "");
  Paused paused;
  torch::jit::Stack stack{static_cast<int64_t>(what), session, argument, text};
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);  // unseen by modes
  return stack.back().toInt();
}

std::pair<int64_t, int64_t> where_here() {
  if (!Py_IsInitialized()) return {Lines::kUnknown, Lines::kUnknown};
  Gil gil;
  const int64_t line = lines().here();
  return {line, lines().origin(line)};
}

std::vector<std::shared_ptr<Session>> holders(c10::StorageImpl* storage, bool* pending) {
  std::vector<std::shared_ptr<Session>> found;
  *pending = false;
  for (auto& session : registry().sessions) {
    bool here = false;
    for (Trace* trace : {session->trace.get(), session->running.get()}) {
      if (!trace) continue;
      int slot = trace->find_slot(storage);
      if (slot < 0) continue;
      here = true;
      *pending = *pending || trace->slots[slot].pending();
    }
    if (here) found.push_back(session);
  }
  return found;
}

std::shared_ptr<Paces> paces_at(int64_t origin) {
  constexpr size_t kMost = 1000;
  if (origin == Lines::kUnknown) return std::make_shared<Paces>();
  auto& all = registry().paces;
  if (all.size() >= kMost) all.clear();
  auto& paces = all[origin];
  if (!paces) paces = std::make_shared<Paces>();
  return paces;
}

bool Session::is_never(const OpInfo& info) const {
  std::string name = info.name.substr(info.name.find("::") + 2);
  name.resize(std::min(name.size(), name.find('.')));
  if (name.starts_with("_foreach_")) name.erase(0, std::string("_foreach_").size());
  if (name.ends_with('_') && !name.ends_with("__")) name.pop_back();  // in place
  const Lock lock(shared_mutex);
  return never.contains(name);
}

AfterLook note_look(Session& session) {
  if (&session != this_session.get()) return AfterLook::kGoesOn;
  const auto now = std::chrono::steady_clock::now();
  const Lock lock(shared_mutex);
  Pace* const looks = session.looks();
  if (!looks || !session.settings.may_sleep) return AfterLook::kGoesOn;
  if (looks->rests()) {  // since a session before
    looks->end(now, Piece::kSteady);
    return AfterLook::kSleeps;
  }
  if (now - session.began < Pace::kLong) {
    looks->begin(now);
    return AfterLook::kGoesOn;
  }
  const Piece piece = session.since(session.at_last_look);
  session.at_last_look = session.flushes();
  const bool loses = looks->end(now, piece);
  if (session.running) looks->put_off();  // it would have to wait for another flush
  session.napping = looks->runs_now() && !session.owes();
  if (loses) return AfterLook::kSleeps;
  return looks->runs_now() && !session.napping ? AfterLook::kNaps : AfterLook::kGoesOn;
}

void begin_nap(Session& session) {
  const Lock lock(shared_mutex);
  Pace* const looks = session.looks();
  if (!looks) return;
  const bool computed = !session.owes();
  session.napping = computed && looks->begin_trial(std::chrono::steady_clock::now());
  if (!computed) looks->put_off();
}

}  // namespace torchy
