//! Significant words of a text, without stop words, and their stems.

/// English stop words.
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

/// Returns the words of a text in lowercase, in order: runs of letters and digits, as the full-text index splits them.
pub fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// Returns the distinct words that are not stop words, in order. If a text has only stop words, returns all of them:
/// "to be or not to be" is a question, too.
pub fn significant_words(text: &str) -> Vec<String> {
    let telling = distinct(words(text).filter(|word| STOP_WORDS.binary_search(&word.as_str()).is_err()));
    if telling.is_empty() { distinct(words(text)) } else { telling }
}

/// Returns an approximate stem: `travelling`, `travels` and `travel` have the same one.
pub fn stem(word: &str) -> &str {
    const SUFFIXES: &[&str] =
        &["ations", "ation", "ments", "ment", "ings", "ing", "ies", "ied", "ed", "es", "ly", "s", "y", "e"];
    let long_enough = |stem: &&str| stem.chars().count() >= 3;
    let stem = SUFFIXES.iter().find_map(|suffix| word.strip_suffix(suffix).filter(long_enough)).unwrap_or(word);
    // `travell-ing`: the suffix doubled the last consonant.
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
    fn stop_words_are_sorted_for_binary_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn removes_stop_words_unless_all_words_are_stop_words() {
        assert_eq!(
            significant_words("What is our travel policy, and the travel budget?"),
            ["travel", "policy", "budget"]
        );
        assert_eq!(significant_words("to be"), ["to", "be"]);
        assert!(significant_words("?!…").is_empty());
    }

    #[test]
    fn related_words_share_a_stem() {
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
