//! Parameters on the segments of a path: what follows a `;`, as in `/checkout;v=1/order`. Servlet containers drop them
//! before they look at a path; to most other servers they are letters like any. So nothing that decides by a path may
//! see them, and whoever serves the request gets them as they came.

use std::borrow::Cow;

/// A path, in its one spelling, as a server sees it that drops parameters: each segment without what follows its first
/// `;`, written as it is or as `%3B`. Borrowed where there are none.
pub fn without_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(';') && !path.contains("%3B") {
        return Cow::Borrowed(path);
    }
    let bare = |segment: &str| {
        let end = [";", "%3B"].iter().filter_map(|mark| segment.find(mark)).min();
        end.unwrap_or(segment.len())
    };
    let segments: Vec<&str> = path.split('/').map(|segment| &segment[..bare(segment)]).collect();
    Cow::Owned(segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_segment_loses_its_own_and_nothing_else() {
        for (path, bare) in [
            ("/checkout;a=1/order", "/checkout/order"),
            ("/checkout/order;jsessionid=1;v=2", "/checkout/order"),
            ("/a%3Bb/c;d", "/a/c"),
            ("/a;b%3Bc/", "/a/"),
            ("/a%3Ab=c,d", "/a%3Ab=c,d"),
        ] {
            assert_eq!(without_parameters(path), bare, "{path}");
        }
        assert!(matches!(without_parameters("/plain/path"), Cow::Borrowed(_)));
    }
}
