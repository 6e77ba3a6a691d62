// The walker: sees every op below autograd, on unpatched torch, and records or runs it.
//
// It must be C++ because only C++ can make a tensor whose storage has no memory yet, because ops
// arrive from threads without Python, and because an op is recorded in the time in which Python
// looks up a name.
//
// One unit: torch's headers are read once, and what is called for each op is inlined across files.
// Each includes what it needs, from the bottom up in this order. Built on first use by native.py,
// without Python's headers.

// Python, the program's lines, memory
#include "hooks.cpp"
#include "memory.cpp"
#include "pool.cpp"
#include "scan.cpp"
#include "source.cpp"

// places, traces, sessions
#include "births.cpp"
#include "layout.cpp"
#include "log.cpp"
#include "meta.cpp"
#include "numbers.cpp"
#include "pace.cpp"
#include "ran_now.cpp"
#include "session.cpp"
#include "trace.cpp"
#include "trie.cpp"

// flushes
#include "caller.cpp"
#include "execute.cpp"
#include "finish.cpp"
#include "interpret.cpp"
#include "pack.cpp"
#include "replay.cpp"
#include "settle.cpp"

// ops
#include "claim.cpp"
#include "draws.cpp"
#include "expect.cpp"
#include "gradients.cpp"
#include "indices.cpp"
#include "recorder.cpp"
#include "see.cpp"
#include "select.cpp"
#include "typed.cpp"

// what Python calls
#include "api.cpp"
#include "calls.cpp"
#include "codes.cpp"
#include "fork.cpp"
#include "watch_calls.cpp"

TORCH_LIBRARY_IMPL(_, PrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::see_unclaimed>());
}
TORCH_LIBRARY_IMPL(_, SparsePrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, SparseCsrPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, NestedTensorPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, QuantizedPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
// Ops without a gradient formula. The CPU's own fallback goes straight on to the CPU's kernel.
TORCH_LIBRARY_IMPL(_, AutogradPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
