use proptest::prelude::*;

use super::*;

fn entry(text: &str) -> Match {
    let mut entry = Match::default();
    for word in text.split_whitespace() {
        if let Some(header) = word.strip_prefix("+") {
            let (name, value) = header.split_once('=').unwrap();
            let name = HeaderName::try_from(name).unwrap();
            entry.headers.push((name, HeaderValue::from_str(value).unwrap()));
        } else if word.starts_with(['/', '~']) {
            entry.path = word.parse().unwrap();
        } else if word.bytes().all(|byte| byte.is_ascii_uppercase()) {
            entry.methods.push(word.parse().unwrap());
        } else {
            entry.hosts.push(word.parse().unwrap());
        }
    }
    entry
}

/// A table whose values are the texts of its entries: hosts, `/path` or `~regex`, METHODS, `+header=value`.
fn table(entries: &[&'static str]) -> Table<&'static str> {
    Table::build(entries.iter().map(|text| (entry(text), *text)).collect()).unwrap()
}

/// A request is written `METHOD host/path +header=value`.
fn request(text: &str) -> (Method, &str, &str, HeaderMap) {
    let mut words = text.split(' ');
    let method = words.next().unwrap().parse().unwrap();
    let target = words.next().unwrap();
    let (host, path) = target.split_at(target.find('/').unwrap());
    let mut headers = HeaderMap::new();
    for word in words {
        let (name, value) = word[1..].split_once('=').unwrap();
        headers.append(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    (method, host, path, headers)
}

#[track_caller]
fn check(entries: &[&'static str], expected: &[(&str, Option<&str>)]) {
    let table = table(entries);
    for (text, route) in expected {
        let (method, host, path, headers) = request(text);
        let found = table.find(host, path, &method, &headers).copied();
        assert_eq!(found, *route, "{text}");
    }
}

#[test]
fn the_most_specific_host_wins_and_falls_back_to_the_next() {
    check(
        &[
            "/**",
            "*.example.com /**",
            "*.shop.example.com /**",
            "shop.example.com /only",
            "[::1] /**",
        ],
        &[
            ("GET shop.example.com/only", Some("shop.example.com /only")),
            ("GET shop.example.com/other", Some("*.example.com /**")),
            ("GET a.shop.example.com/x", Some("*.shop.example.com /**")),
            ("GET a.b.shop.example.com/x", Some("*.shop.example.com /**")),
            ("GET a.b.c.example.com/x", Some("*.example.com /**")),
            ("GET example.com/x", Some("/**")),
            ("GET notexample.com/x", Some("/**")),
            ("GET [::1]/x", Some("[::1] /**")),
            ("GET com/x", Some("/**")),
        ],
    );
}

#[test]
fn the_most_specific_path_wins_whatever_the_order() {
    check(
        &[
            "~^/regex",
            "/**",
            "/shop/**",
            "/shop/cart/**",
            "/shop/{item}",
            "/shop/cart",
            "/{a}/cart/{b}",
            "/shop/{a}/{b}",
            "~^/shop/cart/.*/z$",
        ],
        &[
            ("GET h/shop/cart", Some("/shop/cart")),
            ("GET h/shop/cart/", Some("/shop/cart/**")),
            ("GET h/shop/cart/x/y", Some("/shop/cart/**")),
            ("GET h/shop/cart/x/z", Some("~^/shop/cart/.*/z$")),
            ("GET h/shop/hat", Some("/shop/{item}")),
            ("GET h/shop/", Some("/shop/**")),
            ("GET h/shop", Some("/shop/**")),
            ("GET h/shopping", Some("/**")),
            ("GET h/x/cart/y", Some("/{a}/cart/{b}")),
            ("GET h/shop/cart/y", Some("/shop/{a}/{b}")),
            ("GET h/shop/hat/y", Some("/shop/{a}/{b}")),
            ("GET h/", Some("/**")),
            ("GET h/regex", Some("~^/regex")),
        ],
    );
}

#[test]
fn more_literal_segments_win_even_when_they_stand_further_right() {
    check(
        &["/a/{x}/{y}", "/{x}/b/c"],
        &[
            ("GET h/a/b/c", Some("/{x}/b/c")),
            ("GET h/a/b/d", Some("/a/{x}/{y}")),
            ("GET h/a//d", None),
        ],
    );
}

#[test]
fn regexes_come_after_whole_paths_and_before_prefixes_in_the_order_written() {
    check(
        &["~\\.php$", "~^/x", "/x/{y}", "/y/**", "/y/a.php"],
        &[
            ("GET h/y/a.php", Some("/y/a.php")),
            ("GET h/y/b.php", Some("~\\.php$")),
            ("GET h/y/b", Some("/y/**")),
            ("GET h/x/y", Some("/x/{y}")),
            ("GET h/x/y/z", Some("~^/x")),
            ("GET h/x/y/z.php", Some("~\\.php$")),
            ("GET h/z.php/", None),
        ],
    );
}

#[test]
fn more_headers_then_named_methods_then_the_order_written() {
    check(
        &[
            "/p",
            "/p GET",
            "/p +x-beta=1",
            "/p GET +x-beta=1",
            "/p +x-beta=1 +x-dev=1",
            "/p +x-dev=1",
        ],
        &[
            ("GET h/p", Some("/p GET")),
            ("POST h/p", Some("/p")),
            ("POST h/p +x-beta=1", Some("/p +x-beta=1")),
            ("GET h/p +x-beta=1", Some("/p GET +x-beta=1")),
            ("GET h/p +x-beta=1 +x-dev=1", Some("/p +x-beta=1 +x-dev=1")),
            ("POST h/p +x-dev=2 +x-dev=1", Some("/p +x-dev=1")),
            ("GET h/p +x-beta=2", Some("/p GET")),
        ],
    );
}

#[test]
fn where_method_or_headers_do_not_fit_the_next_path_is_tried() {
    check(
        &["h /p POST", "h /{x} PUT", "h /** +x-a=1", "/p DELETE", "~. PATCH"],
        &[
            ("POST h/p", Some("h /p POST")),
            ("PUT h/p", Some("h /{x} PUT")),
            ("GET h/p +x-a=1", Some("h /** +x-a=1")),
            ("DELETE h/p", Some("/p DELETE")),
            ("PATCH h/p", Some("~. PATCH")),
            ("GET h/p", None),
        ],
    );
}

#[test]
fn get_stands_for_head_unless_head_is_named() {
    check(&["/p GET"], &[("HEAD h/p", Some("/p GET"))]);
    check(
        &["/p GET", "/p HEAD"],
        &[("HEAD h/p", Some("/p HEAD")), ("GET h/p", Some("/p GET"))],
    );
}

#[test]
fn an_escape_does_not_hide_a_path_from_its_rule() {
    check(
        &["/@admin", "/\u{ad00}\u{b9ac}/**", "/a%20b", "~^/caf\u{e9}$"],
        &[
            ("GET h/%40admin", Some("/@admin")),
            ("GET h/@admin", Some("/@admin")),
            ("GET h/%EA%B4%80%EB%A6%AC/x", Some("/\u{ad00}\u{b9ac}/**")),
            ("GET h/a%20b", Some("/a%20b")),
            ("GET h/caf%C3%A9", Some("~^/caf\u{e9}$")),
        ],
    );
}

#[test]
fn parameters_do_not_hide_a_path_from_its_rule() {
    check(
        &["/checkout/**", "/users/{id}/orders", "~\\.php$", "/**"],
        &[
            ("GET h/checkout;a=1/order", Some("/checkout/**")),
            ("GET h/checkout%3Ba=1/order;b", Some("/checkout/**")),
            ("GET h/users;v=1/7;v=2/orders;v=3", Some("/users/{id}/orders")),
            ("GET h/a.php;v=1", Some("~\\.php$")),
            ("GET h/checkou;t/order", Some("/**")),
        ],
    );
}

/// The routes of an example, by name.
fn example(text: &str) -> Table<String> {
    let rules: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    let texts = |list: &serde_yaml::Value| -> Vec<String> {
        let list = list.as_sequence().cloned().unwrap_or_default();
        list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let entries = rules["routes"].as_sequence().unwrap().iter().map(|route| {
        let wanted = &route["match"];
        let headers = wanted.get("headers").and_then(|headers| headers.as_mapping());
        let headers = headers.into_iter().flatten().map(|(name, value)| {
            let name = HeaderName::try_from(name.as_str().unwrap()).unwrap();
            (name, HeaderValue::from_str(value.as_str().unwrap()).unwrap())
        });
        let entry = Match {
            hosts: wanted
                .get("hosts")
                .map(texts)
                .unwrap_or_default()
                .iter()
                .map(|h| h.parse().unwrap())
                .collect(),
            path: wanted
                .get("path")
                .map_or(PathPattern::default(), |path| path.as_str().unwrap().parse().unwrap()),
            methods: wanted
                .get("methods")
                .map(texts)
                .unwrap_or_default()
                .iter()
                .map(|m| m.parse().unwrap())
                .collect(),
            headers: headers.collect(),
        };
        (entry, route["name"].as_str().unwrap().to_owned())
    });
    Table::build(entries.collect()).unwrap()
}

#[track_caller]
fn routes(table: &Table<String>, text: &str) -> String {
    let (method, host, path, headers) = request(text);
    table.find(host, path, &method, &headers).cloned().unwrap_or_default()
}

/// As whoever comes from nginx has `location ~ /\.git { deny all; }` beside `location /`.
#[test]
fn the_example_of_a_denied_regex_holds_beside_routes_that_take_everything() {
    let table = example(include_str!("../../../conf/examples/respond.yaml"));
    for (path, route) in [
        ("/.git/config", "no-dotfiles"),
        ("/static/.env", "no-dotfiles"),
        ("/a/.svn/;v=1", "no-dotfiles"),
        ("/static/.github", "files"),
        ("/.git;v=1/config", "no-dotfiles"),
        ("/robots.txt", "robots"),
        ("/", "app"),
    ] {
        assert_eq!(routes(&table, &format!("GET a{path}")), route, "{path}");
    }
}

#[test]
fn the_example_does_what_it_says() {
    let table = example(include_str!("../../../conf/examples/routing.yaml"));
    for (text, route) in [
        ("GET elsewhere/x", "rest"),
        ("GET a.shop.example.com/x", "shop"),
        ("GET shop.example.com/users/7/orders", "user-orders"),
        ("POST shop.example.com/users/7/orders", "place-order"),
        ("GET shop.example.com/users/orders", "shop"),
        ("GET shop.example.com/users/7/orders/9", "shop"),
        ("GET shop.example.com/x +x-beta=1", "shop-beta"),
        ("GET elsewhere/%ED%96%89%EC%82%AC/1", "events"),
        ("GET static.example.com/7/hat.jpeg", "pictures"),
        ("GET static.example.com/hat.jpeg", "rest"),
        ("GET elsewhere/x;v=1", "rest"),
        ("GET shop.example.com/users;v=1/7/orders", "user-orders"),
        ("GET static.example.com/7/old/hat.jpeg", "pictures"),
    ] {
        assert_eq!(routes(&table, text), route, "{text}");
    }
}

fn clashes(entries: &[&str]) -> Vec<(usize, usize)> {
    match Table::build(entries.iter().map(|text| (entry(text), ())).collect()) {
        Ok(_) => Vec::new(),
        Err(clashes) => clashes.into_iter().map(|clash| (clash.first, clash.second)).collect(),
    }
}

#[test]
fn entries_that_no_request_can_tell_apart_clash() {
    assert_eq!(clashes(&["/a", "/b", "/a"]), [(0, 2)]);
    assert_eq!(clashes(&["/u/{id}", "/u/{name}"]), [(0, 1)]);
    assert_eq!(clashes(&["x y /a", "z y /a"]), [(0, 1)]);
    assert_eq!(clashes(&["x y /a", "y x /a"]), [(0, 1)]);
    assert_eq!(clashes(&["/a GET POST", "/a POST"]), [(0, 1)]);
    assert_eq!(clashes(&["/a +x=1 +y=1", "/a +y=1 +x=1"]), [(0, 1)]);
    assert_eq!(clashes(&["~a", "/a", "~a"]), [(0, 2)]);
    assert_eq!(clashes(&["/a", "/a", "/a"]), [(0, 1), (0, 2)]);
    assert_eq!(clashes(&["/@a", "/%40a"]), [(0, 1)]);
}

#[test]
fn entries_that_some_request_tells_apart_do_not_clash() {
    for entries in [
        &["/a", "/a/"][..],
        &["/a", "/a GET"],
        &["/a POST", "/a GET POST"],
        &["/a GET", "/a HEAD"],
        &["/a", "/a +x=1"],
        &["x /a", "/a"],
        &["x /a", "*.x /a"],
        &["x x /a"],
        &["/a/{b}", "/a/{b}/**"],
    ] {
        assert_eq!(clashes(entries), [], "{entries:?}");
    }
}

#[test]
fn a_clash_names_host_and_path() {
    let entries = vec![(entry("*.x /a"), ()), (entry("*.x /a"), ())];
    let clash = Table::build(entries).unwrap_err().remove(0);
    assert_eq!(
        clash.to_string(),
        "no request can tell these two apart: both take path `/a` on host `*.x`"
    );
}

/// Routes of every kind, `count` of each.
fn many(count: usize) -> Table<usize> {
    let texts = (0..count).flat_map(|i| {
        [
            format!("h{i}.example.com /a/b{i}"),
            format!("*.x{i}.example.com /a/**"),
            format!("/exact{i}/a"),
            format!("/users{i}/{{id}}/orders"),
            format!("/users/{{id}}/orders{i}"),
            format!("/prefix/p{i}/**"),
        ]
    });
    Table::build(texts.map(|text| entry(&text)).zip(0..).collect()).unwrap()
}

#[test]
fn a_thousand_routes_cost_no_more_steps_than_ten() {
    let (ten, thousand) = (many(10), many(1000));
    let no_headers = HeaderMap::new();
    for (host, path) in [
        ("h7.example.com", "/a/b7"),
        ("a.b.x7.example.com", "/a/b/c"),
        ("other", "/exact7/a"),
        ("other", "/users7/1/orders"),
        ("other", "/users/1/orders7"),
        ("other", "/prefix/p7/x/y/z"),
        ("other", "/nothing/of/the/kind"),
    ] {
        let steps = |table: &Table<usize>| {
            let mut steps = 0;
            let asked = Asked {
                path,
                method: &Method::GET,
                headers: &no_headers,
            };
            let found = table.find_counted(host, &asked, &mut steps).is_some();
            (found, steps)
        };
        assert_eq!(steps(&ten), steps(&thousand), "{host}{path}");
        assert!(steps(&ten).1 <= 12, "{host}{path}: {} steps", steps(&ten).1);
        assert_eq!(steps(&ten).0, path != "/nothing/of/the/kind", "{host}{path}");
    }
}

#[test]
fn a_host_of_many_labels_costs_no_more_than_the_longest_suffix() {
    let table = many(10);
    let headers = HeaderMap::new();
    let asked = Asked {
        path: "/",
        method: &Method::GET,
        headers: &headers,
    };
    let mut steps = 0;
    table.find_counted(&"a.".repeat(120), &asked, &mut steps);
    assert!(steps < 12, "{steps}");
}

/// The same rules, told as a comparison of every entry with every other.
fn reference(entries: &[Match], text: &str) -> Vec<usize> {
    let (method, host, path, headers) = request(text);
    let decoded = path::compared(path);
    let mut fitting: Vec<_> = entries
        .iter()
        .enumerate()
        .flat_map(|(index, entry)| {
            let hosts = if entry.hosts.is_empty() {
                vec![None]
            } else {
                let mut hosts = entry.hosts.clone();
                hosts.sort();
                hosts.dedup();
                hosts.into_iter().map(Some).collect()
            };
            hosts.into_iter().map(move |host| (index, entry, host))
        })
        .filter(|(_, _, pattern)| match pattern {
            None => true,
            Some(HostPattern::Exact(name)) => **name == *host,
            Some(HostPattern::Below(suffix)) => host.strip_suffix(&**suffix).is_some_and(|rest| rest.ends_with('.')),
        })
        .filter(|(_, entry, _)| takes_path(&entry.path, &decoded))
        .filter(|(_, entry, pattern)| takes_method(entries, entry, pattern.as_ref(), &method))
        .filter(|(_, entry, _)| {
            let sent = |(name, value): &(HeaderName, HeaderValue)| headers.get_all(name).iter().any(|v| v == value);
            entry.headers.iter().all(sent)
        })
        .collect();
    fitting.sort_by(|(i, a, x), (j, b, y)| {
        let host = |pattern: &Option<HostPattern>| match pattern {
            Some(HostPattern::Exact(_)) => (0, 0),
            Some(HostPattern::Below(suffix)) => (1, usize::MAX - suffix.len()),
            None => (2, 0),
        };
        let by_regex = regex_order(entries, a, x.as_ref()).cmp(&regex_order(entries, b, y.as_ref()));
        (host(x).cmp(&host(y)))
            .then(a.path.compare(&b.path))
            .then(by_regex)
            .then(b.headers.len().cmp(&a.headers.len()))
            .then(a.methods.is_empty().cmp(&b.methods.is_empty()))
            .then(i.cmp(j))
    });
    fitting.into_iter().map(|(index, ..)| index).collect()
}

/// Where the first entry of the same host with the same regex stands.
fn regex_order(entries: &[Match], entry: &Match, host: Option<&HostPattern>) -> Option<usize> {
    let is_regex = entry.path.as_str().starts_with('~');
    is_regex.then(|| {
        let same = |other: &Match| other.path.takes_the_same_as(&entry.path) && names(other, host);
        entries.iter().position(same).unwrap()
    })
}

fn names(entry: &Match, host: Option<&HostPattern>) -> bool {
    host.map_or(entry.hosts.is_empty(), |host| entry.hosts.contains(host))
}

fn takes_path(pattern: &PathPattern, path: &str) -> bool {
    if let Some(expression) = pattern.as_str().strip_prefix('~') {
        return regex::Regex::new(expression.trim()).unwrap().is_match(path);
    }
    let (body, is_open) = match pattern.as_str().strip_suffix("/**") {
        Some(body) => (body, true),
        None => (pattern.as_str(), false),
    };
    let wanted: Vec<&str> = body.split('/').collect();
    let given: Vec<&str> = path.split('/').collect();
    let enough = if is_open {
        given.len() >= wanted.len()
    } else {
        given.len() == wanted.len()
    };
    let pairs = || wanted.iter().zip(&given);
    enough
        && pairs().all(|(want, have)| {
            if want.starts_with('{') {
                !have.is_empty()
            } else {
                want == have
            }
        })
}

fn takes_method(entries: &[Match], entry: &Match, host: Option<&HostPattern>, method: &Method) -> bool {
    let head_is_named = entries.iter().any(|other| {
        names(other, host)
            && other.path.takes_the_same_as(&entry.path)
            && other.headers == entry.headers
            && other.methods.contains(&Method::HEAD)
    });
    let by_get = *method == Method::HEAD && entry.methods.contains(&Method::GET) && !head_is_named;
    entry.methods.is_empty() || entry.methods.contains(method) || by_get
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(texts)
}

fn any_entry() -> impl Strategy<Value = String> {
    let segments = || proptest::collection::vec(one_of(&["/a", "/b", "/{p}", "/{q}"]), 1..4).prop_map(|s| s.concat());
    let path = prop_oneof![
        4 => segments(),
        2 => segments().prop_map(|path| path + "/**"),
        1 => one_of(&["/**", "/", "~^/[ab]", "~[ab]$"]).prop_map(str::to_owned),
    ];
    let host = one_of(&["", "", "a.b", "b", "*.b", "*.a.b", "x *.b"]);
    let methods = one_of(&["", "GET", "HEAD", "GET POST"]);
    let headers = one_of(&["", "", "+x=1", "+y=1", "+x=1 +y=1"]);
    (host, path, methods, headers)
        .prop_map(|(host, path, methods, headers)| format!("{host} {path} {methods} {headers}"))
}

fn any_request() -> impl Strategy<Value = String> {
    let method = one_of(&["GET", "HEAD", "POST"]);
    let host = one_of(&["a.b", "b", "c.a.b", "x", "z"]);
    let path = prop_oneof![1 => Just("/".to_owned()), 4 => "(/[ab](;v)?){1,4}/?"];
    let headers = one_of(&["", " +x=1", " +y=1", " +x=1 +y=1"]);
    (method, host, path, headers).prop_map(|(method, host, path, headers)| format!("{method} {host}{path}{headers}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_finds_what_comparing_everything_finds(
        texts in proptest::collection::vec(any_entry(), 1..12),
        requests in proptest::collection::vec(any_request(), 1..16),
    ) {
        // Entries that clash are left out, as the operator would have to.
        let mut entries: Vec<Match> = Vec::new();
        for text in &texts {
            entries.push(entry(text));
            if Table::build(entries.iter().cloned().zip(0..).collect::<Vec<(Match, i32)>>()).is_err() {
                entries.pop();
            }
        }
        let table = Table::build(entries.iter().cloned().zip(0..).collect()).unwrap();
        for text in &requests {
            let (method, host, path, headers) = request(text);
            let expected = reference(&entries, text);
            let found: Option<usize> = table.find(host, path, &method, &headers).copied();
            prop_assert_eq!(found, expected.first().copied(), "{}", text);
        }
    }
}
