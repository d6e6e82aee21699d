//! Search in the knowledge base, limited to what the event's user may read.

use serde::Serialize;

use crate::bindings::modhost::module::search as wit;
use crate::error::Error;
use crate::json::Json;

/// A search query. By default, it combines vector search and full-text search.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let hits = Search::new("parental leave").combined().limit(3).run()?;
/// for hit in &hits {
///     info!("{}: {}", hit.name(), hit.text);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "the query is not sent until `run` is called"]
pub struct Search(wit::Query);

impl Search {
    /// Creates a query for a question or words.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let hits = Search::new("parental leave").run()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(text: impl Into<String>) -> Self {
        Self(wit::Query {
            text: text.into(),
            kind: wit::Kind::Combined,
            limit: None,
            page: None,
            scope_ids: Vec::new(),
            content_ids: Vec::new(),
            chat_only: false,
            language: None,
            score_threshold: None,
            metadata_filter: None,
            reranker: None,
        })
    }

    /// Combines vector search and full-text search.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("parental leave").combined();
    /// ```
    pub fn combined(mut self) -> Self {
        self.0.kind = wit::Kind::Combined;
        self
    }

    /// Uses vector search, which matches by meaning.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("time off for parents").vector();
    /// ```
    pub fn vector(mut self) -> Self {
        self.0.kind = wit::Kind::Vector;
        self
    }

    /// Uses full-text search, which matches by words.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("§ 15 BEEG").full_text();
    /// ```
    pub fn full_text(mut self) -> Self {
        self.0.kind = wit::Kind::FullText;
        self
    }

    /// Sets the maximum number of hits, 1 to 1000. The platform's default is 20.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("parental leave").limit(3);
    /// ```
    pub fn limit(mut self, hits: u32) -> Self {
        self.0.limit = Some(hits);
        self
    }

    /// Sets the page of hits, from 1.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let more = Search::new("parental leave").limit(10).page(2);
    /// ```
    pub fn page(mut self, page: u32) -> Self {
        self.0.page = Some(page);
        self
    }

    /// Searches only these scopes (folders), by id.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("parental leave").scopes(["scope_hr"]);
    /// ```
    pub fn scopes(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.scope_ids.extend(ids.into_iter().map(Into::into));
        self
    }

    /// Searches only these contents, by id.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("parental leave").contents(["cont_handbook"]);
    /// ```
    pub fn contents(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.content_ids.extend(ids.into_iter().map(Into::into));
        self
    }

    /// Searches only files uploaded to the chat.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("total amount").chat_only();
    /// ```
    pub fn chat_only(mut self) -> Self {
        self.0.chat_only = true;
        self
    }

    /// Sets the language of the text index, as the platform names it.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("Elternzeit").language("german");
    /// ```
    pub fn language(mut self, language: impl Into<String>) -> Self {
        self.0.language = Some(language.into());
        self
    }

    /// Omits hits with a lower score.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("parental leave").score_threshold(0.5);
    /// ```
    pub fn score_threshold(mut self, score: f32) -> Self {
        self.0.score_threshold = Some(score);
        self
    }

    /// Sets a metadata filter in UniqueQL, an object.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("parental leave")
    ///     .metadata_filter(json!({ "path": ["year"], "operator": "equals", "value": "2026" }));
    /// ```
    pub fn metadata_filter(mut self, filter: impl Into<Json>) -> Self {
        self.0.metadata_filter = Some(filter.into().into_text());
        self
    }

    /// Reranks the hits with the deployment of this name.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let search = Search::new("parental leave").reranker("bge-reranker");
    /// ```
    pub fn reranker(mut self, deployment: impl Into<String>) -> Self {
        self.0.reranker = Some(deployment.into());
        self
    }

    /// Runs the search and returns the hits, best first.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let best = Search::new("parental leave").limit(1).run()?.into_iter().next();
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(self) -> Result<Vec<Hit>, Error> {
        let hits = wit::search(&self.0).map_err(Error::of("search.search"))?;
        Ok(hits.into_iter().map(Into::into).collect())
    }
}

/// A passage that matches the query.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example(hit: Hit) -> Result<()> {
/// let heading = match hit.pages() {
///     Some(pages) => format!("{}, {pages}", hit.name()),
///     None => hit.name().to_owned(),
/// };
/// messages::reply(format!("## {heading}\n{}", hit.text)).complete()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// The platform's id of the content that contains the passage.
    pub id: String,
    /// The platform's id of the passage.
    pub chunk_id: String,
    /// The text of the passage.
    pub text: String,
    /// The content's title.
    pub title: Option<String>,
    /// The content's key, usually its file name.
    pub key: Option<String>,
    /// The URL that opens the content.
    pub url: Option<String>,
    /// The passage's position in the content.
    pub order: u32,
    /// The first page of the passage; none or negative if the content has no pages.
    pub start_page: Option<i32>,
    /// The last page of the passage.
    pub end_page: Option<i32>,
    /// More metadata of the content, an object.
    pub metadata: Option<Json>,
}

impl Hit {
    /// Returns the content's title, or its key if it has no title, or else its id.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(hit: &Hit) {
    /// info!("quoting {}", hit.name());
    /// # }
    /// ```
    pub fn name(&self) -> &str {
        let named = [&self.title, &self.key].into_iter().flatten().find(|name| !name.trim().is_empty());
        named.unwrap_or(&self.id)
    }

    /// Returns the pages of the passage as readable text: `page 3` or `pages 3–4`. `None` if the content has no pages.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(hit: &Hit) {
    /// info!("quoting {}", hit.pages().unwrap_or_default());
    /// # }
    /// ```
    pub fn pages(&self) -> Option<String> {
        let first = self.start_page.filter(|page| *page > 0)?;
        match self.end_page {
            Some(last) if last > first => Some(format!("pages {first}–{last}")),
            _ => Some(format!("page {first}")),
        }
    }
}

impl From<wit::Hit> for Hit {
    fn from(hit: wit::Hit) -> Self {
        Self {
            id: hit.id,
            chunk_id: hit.chunk_id,
            text: hit.text,
            title: hit.title,
            key: hit.key,
            url: hit.url,
            order: hit.order,
            start_page: hit.start_page,
            end_page: hit.end_page,
            metadata: hit.metadata.map(Json::from_host),
        }
    }
}

impl From<&Hit> for wit::Hit {
    fn from(hit: &Hit) -> Self {
        let hit = hit.clone();
        Self {
            id: hit.id,
            chunk_id: hit.chunk_id,
            text: hit.text,
            title: hit.title,
            key: hit.key,
            url: hit.url,
            order: hit.order,
            start_page: hit.start_page,
            end_page: hit.end_page,
            metadata: hit.metadata.map(Json::into_text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(start_page: Option<i32>, end_page: Option<i32>) -> Hit {
        Hit {
            id: "cont_1".into(),
            chunk_id: "chunk_1".into(),
            text: "…".into(),
            title: None,
            key: None,
            url: None,
            order: 1,
            start_page,
            end_page,
            metadata: None,
        }
    }

    #[test]
    fn pages_are_formatted_if_there_are_any() {
        assert_eq!(hit(None, None).pages(), None);
        assert_eq!(hit(Some(-1), Some(-1)).pages(), None);
        assert_eq!(hit(Some(3), None).pages().as_deref(), Some("page 3"));
        assert_eq!(hit(Some(3), Some(3)).pages().as_deref(), Some("page 3"));
        assert_eq!(hit(Some(3), Some(4)).pages().as_deref(), Some("pages 3–4"));
    }

    #[test]
    fn name_falls_back_to_key_and_id() {
        let mut hit = hit(None, None);
        assert_eq!(hit.name(), "cont_1");
        hit.key = Some("travel.md".into());
        hit.title = Some(" ".into());
        assert_eq!(hit.name(), "travel.md");
        hit.title = Some("Travel".into());
        assert_eq!(hit.name(), "Travel");
    }
}
