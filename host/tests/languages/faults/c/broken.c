// A module whose assertion fails.

#include <assert.h>

#include "modhost.h"

static uint8_t letter(mh_string text, size_t at) {
  assert(at < text.len);
  return text.ptr[at];
}

const mh_failure *mh_handle(const mh_event *event) {
  mh_step step;
  const mh_failure *failure = mh_step_start("Breaking…", &step);
  if (failure) return failure;
  mh_string text = mh_module_chosen(event)->user_message.text;
  return mh_step_done(step, mh_format("%c", letter(text, text.len)));
}
