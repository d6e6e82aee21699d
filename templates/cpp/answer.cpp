// Answers a question from the passages that a search finds.

#include <string>
#include <string_view>

#include "modhost.h"

namespace {

std::string_view view(mh_string text) { return {reinterpret_cast<const char *>(text.ptr), text.len}; }

// The bindings never write to the text, although its type isn't const.
mh_string text(std::string_view text) {
  return {reinterpret_cast<uint8_t *>(const_cast<char *>(text.data())), text.size()};
}

// Returns the prompt: the task and the passages, numbered for citations.
std::string instructions(mh_hits hits) {
  std::string prompt = "Answer from these passages and from nothing else. Cite them as [source0], [source1] and so on.\n";
  for (size_t number = 0; number < hits.len; number++) {
    const auto source = "source" + std::to_string(number);
    prompt += "\n<" + source + ">\n";
    prompt += view(mh_hit_name(&hits.ptr[number]));
    prompt += '\n';
    prompt += view(hits.ptr[number].text);
    prompt += "\n</" + source + ">\n";
  }
  return prompt;
}

const mh_failure *search(mh_string question, mh_hits &hits) {
  mh_step step;
  if (auto failure = mh_step_start("Searching…", &step)) return failure;

  mh_query query{};
  query.text = question;
  query.limit = {true, 3};
  if (auto failure = mh_search(query, &hits)) return failure;
  return mh_step_done(step, mh_format("Passages found: %zu", hits.len));
}

const mh_failure *write(mh_string question, mh_hits hits, mh_string &answer) {
  mh_step step;
  if (auto failure = mh_step_start("Writing the answer…", &step)) return failure;

  const auto prompt = instructions(hits);
  mh_prompt messages[] = {
      {MODHOST_MODULE_TYPES_ROLE_SYSTEM, text(prompt)},
      {MODHOST_MODULE_TYPES_ROLE_USER, question},
  };
  mh_request request{};
  request.messages = {messages, 2};
  mh_answer written;
  if (auto failure = mh_complete(request, &written)) return failure;
  answer = written.text;
  return mh_step_done(step, {});
}

}  // namespace

const mh_failure *mh_handle(const mh_event *event) {
  const auto *chosen = mh_module_chosen(event);
  if (!chosen) return mh_fail("cannot handle event " MH_S, MH_A(event->name));
  const auto question = chosen->user_message.text;

  mh_hits hits;
  if (auto failure = search(question, hits)) return failure;
  if (hits.len == 0) return mh_reply(mh_text("I found nothing about that."));

  mh_string answer;
  if (auto failure = write(question, hits, answer)) return failure;
  return mh_reply_citing(answer, hits);
}
