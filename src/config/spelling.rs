//! What the operator may have meant by a word that is not known here.

/// The candidate nearest to `word`, if it is near enough to be meant: at most one slip for every three letters.
///
/// Case and the choice between `-` and `_` count as no slip at all, for these are the commonest.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let slips_max = word.chars().count().div_ceil(3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &plain(candidate)), candidate))
        .filter(|(slips, candidate)| *slips <= slips_max && *slips < candidate.chars().count())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b`, `c` `` in the order given.
pub fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_and_a_distant_one_is_not() {
        let keys = ["match", "chain", "upstream", "name"];
        assert_eq!(nearest("matcher", keys), Some("match"));
        assert_eq!(nearest("up-stream", keys), Some("upstream"));
        assert_eq!(nearest("Chian", keys), Some("chain"));
        assert_eq!(nearest("elephant", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest("maxBody", ["max_body"]), Some("max_body"));
    }
}
