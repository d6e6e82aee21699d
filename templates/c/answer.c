// Answers a question from the passages that a search finds.

#include "modhost.h"

// Returns the prompt: the task and the passages, numbered for citations.
static mh_string instructions(mh_hits hits) {
  mh_string text = mh_text(
      "Answer from these passages and from nothing else. Cite them as [source0], [source1] and so on.\n");
  for (size_t number = 0; number < hits.len; number++) {
    const mh_hit *hit = &hits.ptr[number];
    text = mh_format(MH_S "\n<source%zu>\n" MH_S "\n" MH_S "\n</source%zu>\n", MH_A(text), number,
                     MH_A(mh_hit_name(hit)), MH_A(hit->text), number);
  }
  return text;
}

static const mh_failure *search(mh_string question, mh_hits *hits) {
  mh_step step;
  const mh_failure *failure = mh_step_start("Searching…", &step);
  if (failure) return failure;

  mh_query query = {.text = question, .limit = MH_SOME(3)};
  if ((failure = mh_search(query, hits))) return failure;
  return mh_step_done(step, mh_format("Passages found: %zu", hits->len));
}

static const mh_failure *write_answer(mh_string question, mh_hits hits, mh_string *text) {
  mh_step step;
  const mh_failure *failure = mh_step_start("Writing the answer…", &step);
  if (failure) return failure;

  mh_prompt messages[] = {
      {.role = MODHOST_MODULE_TYPES_ROLE_SYSTEM, .content = instructions(hits)},
      {.role = MODHOST_MODULE_TYPES_ROLE_USER, .content = question},
  };
  mh_request request = {.messages = {messages, 2}};
  mh_answer written;
  if ((failure = mh_complete(request, &written))) return failure;
  *text = written.text;
  return mh_step_done(step, mh_text(""));
}

const mh_failure *mh_handle(const mh_event *event) {
  const mh_chosen *chosen = mh_module_chosen(event);
  if (!chosen) return mh_fail("cannot handle event " MH_S, MH_A(event->name));
  mh_string question = chosen->user_message.text;

  mh_hits hits;
  const mh_failure *failure = search(question, &hits);
  if (failure) return failure;
  if (hits.len == 0) return mh_reply(mh_text("I found nothing about that."));

  mh_string text;
  if ((failure = write_answer(question, hits, &text))) return failure;
  return mh_reply_citing(text, hits);
}
