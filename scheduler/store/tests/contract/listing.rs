//! Lists against a model: the same filters, order and pages computed over a plain vector.
use crate::harness::{Other, Place, Thing, delete, insert, update};
use pilvi_store::{Dir, Error, Group, Query, Store, Value};
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestRunner};
use std::{cmp::Ordering, collections::BTreeMap};

#[derive(Debug, Clone)]
enum Filter {
    Eq(&'static str, Value),
    Ne(&'static str, Value),
    OneOf(&'static str, Vec<Value>),
    Prefix(&'static str, String),
    Contains(&'static str, String),
    Compare(u8, i64),
    Label(String, bool),
    Any(Vec<Filter>),
}

#[derive(Debug, Clone)]
struct Case {
    things: Vec<Thing>,
    filters: Vec<Filter>,
    sort: Vec<(&'static str, bool)>,
    page: usize,
}

/// Few values, so that they collide; some that sort differently by locale, by case or by UTF-16.
fn word() -> impl Strategy<Value = String> {
    select(vec!["", "a", "A", "b", "ab", "aé", "é", "z", "_", "a%", "Z", "\u{e000}", "\u{10ffff}", "😀", "a b"])
        .prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = i64> {
    select(vec![i64::MIN, -1, 0, 1, 2, 10, i64::MAX])
}

fn things() -> impl Strategy<Value = Vec<Thing>> {
    let one = (
        option::of(word()),
        option::of(word()),
        option::of(word()),
        option::of(number()),
        option::of(word()),
        vec(word(), 0..3),
    );
    vec(one, 0..25).prop_map(|all| {
        let things = all.into_iter().enumerate().map(|(at, (project, name, state, size, user, labels))| {
            // Not in the order of insertion.
            let id = format!("{:02}", (at * 7) % 25);
            Thing { project, name, state, size, user, labels, ..Thing::new(&id) }
        });
        things.collect()
    })
}

const TEXTS: &[&str] = &["project", "name", "state", "user"];

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![4 => plain(), 1 => vec(plain(), 0..4).prop_map(Filter::Any)]
}

fn plain() -> impl Strategy<Value = Filter> {
    let text = || select(TEXTS);
    let value = || option::of(word()).prop_map(Value::from);
    prop_oneof![
        (text(), value()).prop_map(|(c, v)| Filter::Eq(c, v)),
        (text(), value()).prop_map(|(c, v)| Filter::Ne(c, v)),
        (text(), vec(value(), 0..5)).prop_map(|(c, v)| Filter::OneOf(c, v)),
        (text(), word()).prop_map(|(c, p)| Filter::Prefix(c, p)),
        (text(), word()).prop_map(|(c, p)| Filter::Contains(c, p)),
        (0..4_u8, number()).prop_map(|(o, n)| Filter::Compare(o, n)),
        option::of(number()).prop_map(|n| Filter::Eq("size", n.into())),
        option::of(number()).prop_map(|n| Filter::Ne("size", n.into())),
        (word(), any::<bool>()).prop_map(|(label, has)| Filter::Label(label, has)),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let key = select(vec!["project", "name", "state", "user", "size", "id"]);
    (things(), vec(filter(), 0..3), vec((key, any::<bool>()), 0..4), 1..8_usize)
        .prop_map(|(things, filters, sort, page)| Case { things, filters, sort, page })
}

fn value(thing: &Thing, column: &str) -> Value {
    match column {
        "id" => thing.id.clone().into(),
        "project" => thing.project.clone().into(),
        "name" => thing.name.clone().into(),
        "state" => thing.state.clone().into(),
        "user" => thing.user.clone().into(),
        _ => thing.size.into(),
    }
}

fn passes(thing: &Thing, filter: &Filter) -> bool {
    match filter {
        Filter::Eq(column, v) => value(thing, column) == *v,
        Filter::Ne(column, v) => value(thing, column) != *v,
        Filter::OneOf(column, values) => values.contains(&value(thing, column)),
        Filter::Prefix(column, prefix) => {
            value(thing, column).as_text().is_some_and(|t| t.starts_with(prefix.as_str()))
        }
        Filter::Contains(column, part) => value(thing, column).as_text().is_some_and(|t| t.contains(part.as_str())),
        Filter::Compare(order, n) => thing.size.is_some_and(|size| match order {
            0 => size < *n,
            1 => size <= *n,
            2 => size > *n,
            _ => size >= *n,
        }),
        Filter::Label(label, has) => thing.labels.contains(label) == *has,
        Filter::Any(choices) => choices.iter().any(|choice| passes(thing, choice)),
    }
}

fn model(case: &Case) -> Vec<String> {
    let mut found: Vec<&Thing> = case.things.iter().filter(|t| case.filters.iter().all(|f| passes(t, f))).collect();
    found.sort_by(|a, b| {
        for (column, ascending) in &case.sort {
            let order = value(a, column).cmp(&value(b, column));
            let order = if *ascending { order } else { order.reverse() };
            if order != Ordering::Equal {
                return order;
            }
        }
        a.id.cmp(&b.id)
    });
    found.into_iter().map(|t| t.id.clone()).collect()
}

fn query(case: &Case) -> Query {
    let mut query = Query::all();
    for filter in &case.filters {
        query = filtered(query, filter);
    }
    for (column, ascending) in &case.sort {
        query = query.sort(column, if *ascending { Dir::Asc } else { Dir::Desc });
    }
    query
}

fn filtered(query: Query, filter: &Filter) -> Query {
    match filter.clone() {
        Filter::Eq(column, v) => query.eq(column, v),
        Filter::Ne(column, v) => query.ne(column, v),
        Filter::OneOf(column, values) => query.one_of(column, values),
        Filter::Prefix(column, prefix) => query.like_prefix(column, prefix),
        Filter::Contains(column, part) => query.contains(column, part),
        Filter::Compare(0, n) => query.lt("size", n),
        Filter::Compare(1, n) => query.le("size", n),
        Filter::Compare(2, n) => query.gt("size", n),
        Filter::Compare(_, n) => query.ge("size", n),
        Filter::Label(label, true) => query.labelled(label),
        Filter::Label(label, false) => query.not_labelled(label),
        Filter::Any(choices) => query.any_of(choices.iter().map(|choice| filtered(Query::all(), choice))),
    }
}

async fn refill(store: &Store, things: &[Thing]) {
    let things = things.to_vec();
    let refilled = store.write(move |tx| {
        let things = things.clone();
        Box::pin(async move {
            for old in tx.list::<Thing>(Query::all()).await? {
                tx.delete_rev(&old).await?;
            }
            for thing in &things {
                tx.insert(thing).await?;
            }
            Ok::<(), Error>(())
        })
    });
    refilled.await.unwrap();
}

async fn check(store: &Store, case: &Case) {
    refill(store, &case.things).await;
    let expected = model(case);
    let ids = |things: Vec<pilvi_store::Stored<Thing>>| things.into_iter().map(|t| t.record.id).collect::<Vec<_>>();
    assert_eq!(ids(store.list::<Thing>(query(case)).await.unwrap()), expected);
    assert_eq!(store.count::<Thing>(query(case)).await.unwrap(), expected.len() as u64);
    let mut paged: Vec<String> = vec![];
    loop {
        let mut page = query(case).limit(case.page);
        if let Some(last) = paged.last() {
            page = page.after_marker(last);
        }
        let page = ids(store.list::<Thing>(page).await.unwrap());
        assert!(page.len() <= case.page);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
        assert!(paged.len() <= expected.len());
    }
    assert_eq!(paged, expected);
}

pub async fn lists_and_pages_equal_a_model(place: Place) {
    let store = place.open().await;
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() });
        let outcome = runner.run(&case(), |case| {
            runtime.block_on(check(&store, &case));
            Ok(())
        });
        outcome.unwrap();
    });
}

pub async fn filters_and_columns_are_checked(place: Place) {
    let store = place.open().await;
    for id in ["a", "b"] {
        insert(&store, &Thing::sized(id, 1)).await.unwrap();
    }
    let list = async |query: Query| store.list::<Thing>(query).await.map(|found| found.len());
    for query in [
        Query::all().eq("doc", "x"),
        Query::all().sort("note", Dir::Asc),
        Query::all().eq("size\" = 1 OR 1=1 --", "x"),
        Query::all().any_of([Query::all().eq("doc", "x")]),
        Query::all().like_prefix("version", "1"),
    ] {
        assert!(matches!(list(query).await, Err(Error::UnknownColumn { kind: "thing", .. })));
    }
    for query in [
        Query::all().eq("size", "1"),
        Query::all().eq("name", 1),
        Query::all().lt("name", "x"),
        Query::all().gt("size", Value::Null),
        Query::all().like_prefix("size", "1"),
        Query::all().ids(0..40_000),
        Query::all().ids((0..20_000).map(|n| n.to_string())),
    ] {
        assert!(matches!(list(query).await, Err(Error::BadQuery { .. })));
    }
    for marker in ["c", "", "a\0"] {
        let missing = Error::BadMarker { kind: "thing", marker: marker.into() };
        assert_eq!(list(Query::all().after_marker(marker)).await.unwrap_err(), missing);
    }
    assert!(matches!(store.list::<Other>(Query::all().labelled("x")).await, Err(Error::BadQuery { .. })));
    let deep = (0..20).fold(Query::all().eq("size", 1), |inner, _| Query::all().any_of([inner]));
    assert!(matches!(list(deep).await, Err(Error::BadQuery { .. })));
    assert_eq!(list(Query::all().labelled("a\0")).await.unwrap(), 0);
    // A marker need not pass the filters; a limit of nothing is nothing; many values are fine.
    assert_eq!(list(Query::all().ids(["b"]).after_marker("a")).await.unwrap(), 1);
    assert_eq!(list(Query::all().limit(0)).await.unwrap(), 0);
    assert_eq!(
        list(Query::all().ids((0..16_000).map(|n| n.to_string()).chain(["a".into(), "a".into()]))).await.unwrap(),
        1
    );
    assert_eq!(list(Query::all().ids(Vec::<String>::new())).await.unwrap(), 0);
}

pub async fn sums_and_groups(place: Place) {
    let store = place.open().await;
    let mut expected: BTreeMap<Value, (u64, i64)> = BTreeMap::new();
    for n in 0..20_i64 {
        let user = (n % 3 > 0).then(|| format!("u{}", n % 3));
        let size = (n != 7).then_some(n);
        let group = expected.entry(user.clone().into()).or_default();
        *group = (group.0 + 1, group.1 + size.unwrap_or(0));
        insert(&store, &Thing { user, size, ..Thing::new(&format!("{n}")) }).await.unwrap();
    }
    let expected: Vec<Group> =
        expected.into_iter().map(|(user, (count, sum))| Group { key: vec![user], count, sums: vec![sum] }).collect();
    assert_eq!(store.group::<Thing>(&["user"], &["size"], Query::all()).await.unwrap(), expected);
    assert_eq!(store.sum::<Thing>("size", Query::all()).await.unwrap(), 190 - 7);
    assert_eq!(store.sum::<Thing>("size", Query::all().user_is("nobody")).await.unwrap(), 0);
    let inside = store.write(|tx| Box::pin(async move { tx.sum::<Thing>("size", Query::all().lt("size", 3)).await }));
    assert_eq!(inside.await.unwrap(), 3);
    assert!(matches!(store.sum::<Thing>("name", Query::all()).await, Err(Error::BadQuery { .. })));
    assert!(matches!(store.group::<Thing>(&["x"], &[], Query::all()).await, Err(Error::UnknownColumn { .. })));
}

trait ByUser {
    fn user_is(self, user: &str) -> Self;
}
impl ByUser for Query {
    fn user_is(self, user: &str) -> Self {
        self.eq("user", user)
    }
}

pub async fn labels_follow_their_record(place: Place) {
    let store = place.open().await;
    let with = |labels: &[&str]| Thing { labels: labels.iter().map(|l| (*l).to_owned()).collect(), ..Thing::new("a") };
    let has = async |label: &str| store.count::<Thing>(Query::all().labelled(label)).await.unwrap() == 1;
    let mut stored = insert(&store, &with(&["x", "x", "y"])).await.unwrap();
    assert!(has("x").await && has("y").await && !has("z").await);
    stored.record = with(&["y", "z"]);
    update(&store, &stored).await.unwrap();
    assert!(!has("x").await && has("y").await && has("z").await);
    assert!(delete::<Thing>(&store, "a").await.unwrap());
    assert!(!has("y").await);
    // Nothing of the first life is left for the second.
    insert(&store, &Thing::new("a")).await.unwrap();
    assert!(!has("y").await);
    assert!(matches!(insert(&store, &Thing { id: "b".into(), ..with(&["\0"]) }).await, Err(Error::Invalid { .. })));
}

pub async fn times_are_columns(place: Place) {
    let store = place.open().await;
    let a = insert(&store, &Thing::new("z")).await.unwrap();
    let b = insert(&store, &Thing::new("y")).await.unwrap();
    let a = update(&store, &a).await.unwrap();
    assert!(a.created_us < b.created_us && b.updated_us < a.updated_us);
    let ids =
        async |query| store.list::<Thing>(query).await.unwrap().into_iter().map(|t| t.record.id).collect::<Vec<_>>();
    assert_eq!(ids(Query::all().sort("created", Dir::Desc)).await, ["y", "z"]);
    assert_eq!(ids(Query::all().sort("updated", Dir::Desc)).await, ["z", "y"]);
    assert_eq!(ids(Query::all().gt("updated", b.updated_us)).await, ["z"]);
}
