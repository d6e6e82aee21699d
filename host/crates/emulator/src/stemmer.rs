//! What of a text carries its meaning: its words without the ones every text is full of.

/// English words that say nothing about what a question is about.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "anyone", "are", "as", "ask", "at", "be",
    "because", "been", "before", "being", "but", "by", "can", "could", "d", "did", "do", "does", "doing", "don",
    "each", "else", "every", "explain", "find", "for", "from", "get", "give", "had", "has", "have", "having", "he",
    "hello", "her", "here", "hi", "him", "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "know",
    "let", "like", "ll", "m", "many", "may", "me", "might", "much", "must", "my", "need", "no", "not", "of", "on",
    "or", "other", "our", "out", "over", "own", "please", "re", "s", "shall", "she", "should", "show", "so", "some",
    "such", "t", "tell", "than", "thank", "thanks", "that", "the", "their", "them", "then", "there", "these", "they",
    "this", "those", "to", "too", "up", "us", "ve", "very", "want", "was", "we", "were", "what", "when", "where",
    "which", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
];

/// The words of a text in lower case, in order: runs of letters and digits, as the full-text index takes them.
pub fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The distinct words that carry a text's meaning, in order. A text of nothing but common words keeps them all: "to
/// be or not to be" is a question, too.
pub fn telling_words(text: &str) -> Vec<String> {
    let telling = distinct(words(text).filter(|word| STOP_WORDS.binary_search(&word.as_str()).is_err()));
    if telling.is_empty() { distinct(words(text)) } else { telling }
}

/// What words of one family share, roughly: `travelling`, `travels` and `travel` are one.
pub fn stem(word: &str) -> &str {
    const SUFFIXES: &[&str] =
        &["ations", "ation", "ments", "ment", "ings", "ing", "ies", "ied", "ed", "es", "ly", "s", "y", "e"];
    let long_enough = |stem: &&str| stem.chars().count() >= 3;
    let stem = SUFFIXES.iter().find_map(|suffix| word.strip_suffix(suffix).filter(long_enough)).unwrap_or(word);
    // travell-ing, book-ing: a doubled last consonant came with the suffix.
    match stem.as_bytes() {
        [.., a, b] if a == b && stem.len() > 4 && b.is_ascii_lowercase() && stem.len() < word.len() => {
            &stem[..stem.len() - 1]
        }
        _ => stem,
    }
}

fn distinct(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    words.filter(|word| seen.insert(word.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_sorted_for_the_search_in_them() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn common_words_go_unless_nothing_else_is_left() {
        assert_eq!(telling_words("What is our travel policy, and the travel budget?"), ["travel", "policy", "budget"]);
        assert_eq!(telling_words("to be"), ["to", "be"]);
        assert!(telling_words("?!…").is_empty());
    }

    #[test]
    fn words_of_one_family_share_a_stem() {
        for family in [
            &["travel", "travels", "travelling"][..],
            &["policy", "policies"],
            &["approve", "approved"],
            &["expense", "expenses"],
        ] {
            let stems: Vec<_> = family.iter().map(|word| stem(word)).collect();
            assert!(stems.windows(2).all(|pair| pair[0] == pair[1]), "{family:?} -> {stems:?}");
        }
        assert_ne!(stem("leave"), stem("lead"));
    }
}
