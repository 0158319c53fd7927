// Options of the sanitizers, linked into every instrumented test program so that each way of running it has them.
// libtorch and the OpenMP runtime are not instrumented: what they keep until exit or synchronise unseen is no finding.

extern "C" const char* __asan_default_options() {
  return "detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1";
}

extern "C" const char* __ubsan_default_options() {
  return "print_stacktrace=1:halt_on_error=1";
}

extern "C" const char* __lsan_default_suppressions() {
  return "leak:libtorch\n"
         "leak:libc10\n"
         "leak:libgomp\n"
         "leak:libsentencepiece\n"
         "leak:libprotobuf\n";
}

extern "C" const char* __tsan_default_options() {
  return "halt_on_error=1:ignore_noninstrumented_modules=1";
}

extern "C" const char* __tsan_default_suppressions() {
  return "called_from_lib:libgomp\n"
         "called_from_lib:libtorch_cpu.so\n";
}
