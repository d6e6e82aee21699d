//! The requests of the official Python SDK for the same calls.
//!
//! Captured from `unique-sdk` 2026.44.2 (PyPI) with `unique_sdk.api_base` set to a small HTTP server. The times are the
//! ones that were passed in.

/// The time of the captures.
pub const STAMP: &str = "2026-11-21T07:30:00.000Z";

/// `MessageLog.create`
pub const MESSAGE_LOG_CREATE: &str = r#"{"messageId": "msg_a", "text": "Searching…", "status": "RUNNING", "order": 1}"#;

/// `MessageLog.update`, with a reference with an empty description
pub const MESSAGE_LOG_UPDATE: &str = r#"{"text": "Found 1 relevant document", "status": "COMPLETED", "details": {"data": []}, "references": [{"name": "Travel policy", "url": "https://example.com/travel.pdf", "sequenceNumber": 1, "originalIndex": [0], "sourceId": "cont_1_chunk_1", "source": "node-ingestion-chunks"}]}"#;

/// `Search.create`
pub const SEARCH: &str = r#"{"chatId": "chat_1", "searchString": "travel policy", "searchType": "COMBINED", "language": "english", "reranker": {"deploymentName": "rank"}, "scopeIds": ["scope_1"], "chatOnly": true, "limit": 3, "page": 2, "metaDataFilter": {"path": ["key"], "operator": "equals", "value": "a.pdf"}, "contentIds": ["cont_1"], "scoreThreshold": 0.3}"#;

/// `ChatCompletion.create`
pub const CHAT_COMPLETION: &str = r#"{"model": "AZURE_GPT_4o_2024_1120", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "options": {"temperature": 0.3, "max_tokens": 200, "top_p": 0.9}, "timeout": 20000}"#;

/// `Message.create`, with a reference with an empty description
pub const MESSAGE_CREATE: &str = r#"{"chatId": "chat_1", "assistantId": "assistant_1", "role": "ASSISTANT", "text": "Hello", "references": [{"name": "Travel policy", "url": "https://example.com/travel.pdf", "sequenceNumber": 1, "originalIndex": [0], "sourceId": "cont_1_chunk_1", "source": "node-ingestion-chunks"}], "debugInfo": {"took": 1}, "completedAt": "2026-11-21T07:30:00.000Z"}"#;

/// `Message.modify`, with a reference with an empty description
pub const MESSAGE_MODIFY: &str = r#"{"chatId": "chat_1", "text": "Hello", "references": [{"name": "Travel policy", "url": "https://example.com/travel.pdf", "sequenceNumber": 1, "originalIndex": [0], "sourceId": "cont_1_chunk_1", "source": "node-ingestion-chunks"}], "debugInfo": {"took": 1}, "startedStreamingAt": "2026-11-21T07:30:00.000Z", "stoppedStreamingAt": "2026-11-21T07:30:00.000Z", "completedAt": "2026-11-21T07:30:00.000Z"}"#;

/// `Message.create_event`
pub const MESSAGE_EVENT: &str = r#"{"chatId": "chat_1", "text": "Hel"}"#;

/// `Integrated.chat_stream_completion`
pub const STREAM_COMPLETION: &str = r#"{"chatId": "chat_1", "assistantId": "assistant_1", "assistantMessageId": "msg_a", "userMessageId": "msg_u", "model": "AZURE_GPT_4o_2024_1120", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "searchContext": [{"id": "cont_1", "chunkId": "chunk_1", "key": "travel.pdf", "title": "Travel policy", "url": "https://example.com/travel.pdf"}], "options": {"temperature": 0.3, "max_tokens": 200, "top_p": 0.9}, "timeout": 20000}"#;

/// The headers that all of them send.
pub const HEADERS: [(&str, &str); 5] = [
    ("authorization", "Bearer ukey_very_secret"),
    ("x-app-id", "app_test"),
    ("x-company-id", "company_1"),
    ("x-user-id", "user_1"),
    ("x-api-version", "2023-12-06"),
];
