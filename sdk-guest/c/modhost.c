// SPDX-License-Identifier: Apache-2.0

#include "modhost.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Allocates memory. Aborts if there is none left.
static void *allocate(size_t size) {
  void *memory = malloc(size ? size : 1);
  if (!memory) abort();
  return memory;
}

mh_string mh_text(const char *text) {
  mh_string string = {(uint8_t *)text, text ? strlen(text) : 0};
  return string;
}

static mh_string format_text(const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  if (length < 0) abort();
  char *text = allocate((size_t)length + 1);
  vsnprintf(text, (size_t)length + 1, format, arguments);
  mh_string string = {(uint8_t *)text, (size_t)length};
  return string;
}

mh_string mh_format(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  mh_string text = format_text(format, arguments);
  va_end(arguments);
  return text;
}

mh_string mh_trim(mh_string text) {
  while (text.len && isspace(text.ptr[0])) text.ptr++, text.len--;
  while (text.len && isspace(text.ptr[text.len - 1])) text.len--;
  return text;
}

static module_option_string_t optional(mh_string text) {
  module_option_string_t option = {text.len > 0, text};
  return option;
}

// Failures.

static mh_failure *failure_of(mh_kind kind, mh_string reason, mh_retry retry) {
  mh_failure *failure = allocate(sizeof *failure);
  *failure = (mh_failure){.kind = kind, .reason = reason, .retry = retry};
  return failure;
}

mh_failure *mh_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  mh_string reason = format_text(format, arguments);
  va_end(arguments);
  return failure_of(MH_OWN, reason, MH_RETRY_NO);
}

// Returns the failure of a call, by the call's name in the contract.
static const mh_failure *failed(const char *call, const modhost_module_types_error_t *error) {
  switch (error->tag) {
    case MODHOST_MODULE_TYPES_ERROR_INVALID:
      return failure_of(MH_INVALID, mh_format("%s: invalid: " MH_S, call, MH_A(error->val.invalid)), MH_RETRY_NO);
    case MODHOST_MODULE_TYPES_ERROR_DENIED:
      return failure_of(MH_DENIED, mh_format("%s: not allowed: " MH_S, call, MH_A(error->val.denied)), MH_RETRY_NO);
    case MODHOST_MODULE_TYPES_ERROR_NOT_FOUND:
      return failure_of(MH_NOT_FOUND, mh_format("%s: not found: " MH_S, call, MH_A(error->val.not_found)), MH_RETRY_NO);
    case MODHOST_MODULE_TYPES_ERROR_RATE_LIMITED: {
      mh_failure *failure = failure_of(MH_RATE_LIMITED, mh_format("%s: rate limited", call), MH_RETRY_YES);
      if (error->val.rate_limited.is_some) {
        failure->retry = MH_RETRY_AFTER;
        failure->retry_after_seconds = error->val.rate_limited.val;
      }
      return failure;
    }
    case MODHOST_MODULE_TYPES_ERROR_UNAVAILABLE:
      return failure_of(MH_UNAVAILABLE, mh_format("%s: unavailable: " MH_S, call, MH_A(error->val.unavailable)), MH_RETRY_YES);
    case MODHOST_MODULE_TYPES_ERROR_TIMEOUT:
      return failure_of(MH_TIMEOUT, mh_format("%s: timed out; the call may still have taken effect", call), MH_RETRY_YES);
    default:
      return failure_of(MH_UNSUPPORTED, mh_format("%s: not supported: " MH_S, call, MH_A(error->val.unsupported)),
                        MH_RETRY_NO);
  }
}

// The prefix by which the host marks temporary errors of the store.
static const char UNAVAILABLE_PREFIX[] = "unavailable: ";

static const mh_failure *store_failed(const char *call, const wasi_keyvalue_store_error_t *error) {
  if (error->tag == WASI_KEYVALUE_STORE_ERROR_NO_SUCH_STORE)
    return failure_of(MH_NOT_FOUND, mh_format("%s: no such store", call), MH_RETRY_NO);
  if (error->tag == WASI_KEYVALUE_STORE_ERROR_ACCESS_DENIED)
    return failure_of(MH_DENIED, mh_format("%s: not allowed", call), MH_RETRY_NO);
  mh_string text = error->val.other;
  bool temporary = text.len >= strlen(UNAVAILABLE_PREFIX) && !memcmp(text.ptr, UNAVAILABLE_PREFIX, strlen(UNAVAILABLE_PREFIX));
  return failure_of(temporary ? MH_UNAVAILABLE : MH_INVALID, mh_format("%s: " MH_S, call, MH_A(text)),
                    temporary ? MH_RETRY_YES : MH_RETRY_NO);
}

// The event.

const mh_chosen *mh_module_chosen(const mh_event *event) {
  bool is = event->subject.tag == MODHOST_MODULE_EVENTS_SUBJECT_MODULE_CHOSEN;
  return is ? &event->subject.val.module_chosen : NULL;
}

const mh_created *mh_user_message_created(const mh_event *event) {
  bool is = event->subject.tag == MODHOST_MODULE_EVENTS_SUBJECT_USER_MESSAGE_CREATED;
  return is ? &event->subject.val.user_message_created : NULL;
}

// Returns a copy that the bindings may free, because they free strings passed to the host.
static mh_string copy_text(mh_string text) {
  mh_string copy = {allocate(text.len), text.len};
  memcpy(copy.ptr, text.ptr, text.len);
  return copy;
}

// The component's export.
bool exports_module_handle(module_event_t *event, module_failure_t *err) {
  const mh_failure *failure = mh_handle(event);
  if (!failure) return true;
  err->reason = copy_text(failure->reason);
  err->user_text = optional(copy_text(failure->user_text));
  err->retry.tag = failure->retry == MH_RETRY_NO    ? MODHOST_MODULE_EVENTS_RETRY_NO
                   : failure->retry == MH_RETRY_YES ? MODHOST_MODULE_EVENTS_RETRY_YES
                                                    : MODHOST_MODULE_EVENTS_RETRY_AFTER;
  err->retry.val.after = failure->retry_after_seconds;
  return false;
}

// Steps.

const mh_failure *mh_step_start(const char *text, mh_step *step) {
  mh_string label = mh_text(text);
  modhost_module_message_log_error_t error;
  if (modhost_module_message_log_static_entry_create(&label, MODHOST_MODULE_MESSAGE_LOG_STATUS_RUNNING, step, &error))
    return NULL;
  return failed("message-log.create", &error);
}

static const mh_failure *update(mh_step step, mh_string text, modhost_module_message_log_option_status_t status) {
  modhost_module_message_log_change_t change = {.text = optional(text), .status = status};
  modhost_module_message_log_error_t error;
  if (modhost_module_message_log_method_entry_update(modhost_module_message_log_borrow_entry(step), &change, &error))
    return NULL;
  return failed("message-log.update", &error);
}

const mh_failure *mh_step_update(mh_step step, mh_string text) {
  return update(step, text, (modhost_module_message_log_option_status_t){0});
}

const mh_failure *mh_step_done(mh_step step, mh_string text) {
  return update(step, text, (modhost_module_message_log_option_status_t)MH_SOME(MODHOST_MODULE_MESSAGE_LOG_STATUS_COMPLETED));
}

const mh_failure *mh_step_fail(mh_step step, mh_string text) {
  return update(step, text, (modhost_module_message_log_option_status_t)MH_SOME(MODHOST_MODULE_MESSAGE_LOG_STATUS_FAILED));
}

// Search.

const mh_failure *mh_search(mh_query query, mh_hits *hits) {
  modhost_module_search_error_t error;
  if (modhost_module_search_search(&query, hits, &error)) return NULL;
  return failed("search.search", &error);
}

mh_string mh_hit_name(const mh_hit *hit) {
  if (hit->title.is_some && mh_trim(hit->title.val).len) return hit->title.val;
  if (hit->key.is_some && mh_trim(hit->key.val).len) return hit->key.val;
  return hit->id;
}

// Completion.

const mh_failure *mh_complete(mh_request request, mh_answer *answer) {
  modhost_module_completion_error_t error;
  if (modhost_module_completion_complete(&request, answer, &error)) return NULL;
  return failed("completion.complete", &error);
}

const mh_failure *mh_complete_into_reply(mh_request request, mh_hits sources, mh_answer *answer) {
  modhost_module_completion_list_hit_t list = {sources.ptr, sources.len};
  modhost_module_completion_error_t error;
  if (modhost_module_completion_complete_into_reply(&request, &list, answer, &error)) return NULL;
  return failed("completion.complete-into-reply", &error);
}

// Messages.

static const mh_failure *reply(mh_string text, mh_reference *references, size_t count) {
  modhost_module_messages_change_t change = {
      .text = {true, text}, .references = {references, count}, .completed = true};
  modhost_module_messages_message_t message;
  modhost_module_messages_error_t error;
  if (modhost_module_messages_reply(&change, &message, &error)) return NULL;
  return failed("messages.reply", &error);
}

const mh_failure *mh_reply(mh_string text) { return reply(text, NULL, 0); }

const mh_failure *mh_show(mh_string text) {
  modhost_module_messages_error_t error;
  if (modhost_module_messages_show(&text, &error)) return NULL;
  return failed("messages.show", &error);
}

// Returns the reference to a hit, with its number from 0.
static mh_reference reference_to(const mh_hit *hit, uint32_t number) {
  mh_reference reference = {.name = mh_hit_name(hit), .url = hit->url, .sequence_number = number + 1};
  int32_t first = hit->start_page.is_some ? hit->start_page.val : 0;
  int32_t last = hit->end_page.is_some ? hit->end_page.val : 0;
  if (first > 0)
    reference.description = optional(last > first ? mh_format("pages %d–%d", first, last) : mh_format("page %d", first));
  reference.original_index.ptr = allocate(sizeof number);
  reference.original_index.ptr[0] = number;
  reference.original_index.len = 1;
  reference.source_id = mh_format(MH_S "_" MH_S, MH_A(hit->id), MH_A(hit->chunk_id));
  reference.source = mh_text("node-ingestion-chunks");
  return reference;
}

static size_t skip_spaces(mh_string text, size_t at) {
  while (at < text.len && isspace(text.ptr[at])) at++;
  return at;
}

// Parses `source3`, in the spellings that models use, at a position in the text. Returns its end, or 0 if there is none.
static size_t source(mh_string text, size_t at, uint64_t *number) {
  static const char WORD[] = "source";
  at = skip_spaces(text, at);
  for (const char *letter = WORD; *letter; letter++, at++)
    if (at >= text.len || tolower(text.ptr[at]) != *letter) return 0;
  at = skip_spaces(text, at);
  size_t digits = at;
  for (*number = 0; at < text.len && isdigit(text.ptr[at]); at++)
    // A number too large to be a source stays too large.
    if (*number <= UINT32_MAX) *number = *number * 10 + (text.ptr[at] - '0');
  return at > digits ? skip_spaces(text, at) : 0;
}

// Returns the end of the citation `[source0, source2]` whose `[` is at a position in the text, or 0 if it isn't a citation.
static size_t citation_end(mh_string text, size_t at) {
  uint64_t number;
  do at = source(text, at + 1, &number);
  while (at && at < text.len && text.ptr[at] == ',');
  return at && at < text.len && text.ptr[at] == ']' ? at + 1 : 0;
}

const mh_failure *mh_reply_citing(mh_string text, mh_hits hits) {
  // The maximum length of a footnote. A citation has one footnote per source.
  static const size_t FOOTNOTE = sizeof "<sup>4294967296</sup>";
  bool *cited = allocate(hits.len);
  memset(cited, 0, hits.len);
  size_t brackets = 0;
  for (size_t at = 0; at < text.len; at++) brackets += text.ptr[at] == '[' || text.ptr[at] == ',';
  char *written = allocate(text.len + brackets * FOOTNOTE + 1);
  size_t length = 0;
  bool any = false;
  for (size_t at = 0; at < text.len;) {
    size_t end = text.ptr[at] == '[' ? citation_end(text, at) : 0;
    if (!end) {
      written[length++] = (char)text.ptr[at++];
      continue;
    }
    bool known = false;
    for (size_t next = at; next + 1 < end;) {
      uint64_t number = 0;
      next = source(text, next + 1, &number);
      if (number >= hits.len) continue;
      cited[number] = known = any = true;
      length += (size_t)sprintf(written + length, "<sup>%u</sup>", (unsigned)number + 1);
    }
    // A citation without known sources is removed, with the spaces before it.
    while (!known && length && written[length - 1] == ' ') length--;
    at = end;
  }
  mh_reference *references = allocate(hits.len * sizeof *references);
  size_t count = 0;
  for (uint32_t number = 0; number < hits.len; number++)
    if (cited[number] || !any) references[count++] = reference_to(&hits.ptr[number], number);
  mh_string result = {(uint8_t *)written, length};
  return reply(result, references, count);
}

// Settings.

const mh_failure *mh_config(const char *key, const char *otherwise, mh_string *value) {
  mh_string name = mh_text(key);
  module_option_string_t set;
  wasi_config_store_error_t error;
  if (!wasi_config_store_get(&name, &set, &error)) {
    mh_string text = error.tag == WASI_CONFIG_STORE_ERROR_UPSTREAM ? error.val.upstream : error.val.io;
    return failure_of(MH_UNAVAILABLE, mh_format("config.get: unavailable: " MH_S, MH_A(text)), MH_RETRY_YES);
  }
  *value = set.is_some ? set.val : mh_text(otherwise);
  return NULL;
}

// Key-value store.

const mh_failure *mh_store_open(const char *name, mh_store *store) {
  mh_string bucket = mh_text(name);
  wasi_keyvalue_store_error_t error;
  if (wasi_keyvalue_store_open(&bucket, store, &error)) return NULL;
  return store_failed("keyvalue.open", &error);
}

const mh_failure *mh_store_get(mh_store store, mh_string key, mh_string *value, bool *found) {
  module_option_list_u8_t read;
  wasi_keyvalue_store_error_t error;
  if (!wasi_keyvalue_store_method_bucket_get(wasi_keyvalue_store_borrow_bucket(store), &key, &read, &error))
    return store_failed("keyvalue.get", &error);
  *found = read.is_some;
  *value = (mh_string){0};
  if (read.is_some) *value = (mh_string){read.val.ptr, read.val.len};
  return NULL;
}

const mh_failure *mh_store_set(mh_store store, mh_string key, mh_string value) {
  module_list_u8_t bytes = {value.ptr, value.len};
  wasi_keyvalue_store_error_t error;
  if (wasi_keyvalue_store_method_bucket_set(wasi_keyvalue_store_borrow_bucket(store), &key, &bytes, &error)) return NULL;
  return store_failed("keyvalue.set", &error);
}

const mh_failure *mh_store_delete(mh_store store, mh_string key) {
  wasi_keyvalue_store_error_t error;
  if (wasi_keyvalue_store_method_bucket_delete(wasi_keyvalue_store_borrow_bucket(store), &key, &error)) return NULL;
  return store_failed("keyvalue.delete", &error);
}

const mh_failure *mh_store_increment(mh_store store, mh_string key, int64_t by, int64_t *sum) {
  wasi_keyvalue_atomics_error_t error;
  if (wasi_keyvalue_atomics_increment(wasi_keyvalue_store_borrow_bucket(store), &key, by, sum, &error)) return NULL;
  return store_failed("keyvalue.increment", &error);
}

// The log.

void mh_log(wasi_logging_logging_level_t level, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  mh_string message = format_text(format, arguments);
  va_end(arguments);
  mh_string context = {(uint8_t *)"", 0};
  wasi_logging_logging_log(level, &context, &message);
}
