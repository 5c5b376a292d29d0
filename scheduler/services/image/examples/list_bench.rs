//! How long a page of a list takes among many images, by what is asked:
//! `cargo run --release -p pilvi-image --example list_bench [images] [requests] [directory or postgres URL]`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]
use pilvi_image::{
    Config, Image,
    image::model::{Image as Record, Status, Visibility},
    kinds, service,
};
use pilvi_kit::{
    Fault,
    service::Mounting,
    testing::{App, caller},
};
use pilvi_store::Store;
use std::time::{Duration, Instant};

/// Query, and a word about it.
const ASKED: &[(&str, &str)] = &[
    ("", "the first page"),
    ("limit=100", "a hundred"),
    ("limit=1000", "a thousand"),
    ("sort=name:asc", "by name"),
    ("sort=size:desc,name:asc,status:asc", "by three keys"),
    ("sort=updated_at:asc&limit=100", "by last change"),
    ("name=image-7777", "one name"),
    ("name=in:image-1,image-5000,image-9999", "three names"),
    ("status=queued&sort=name:asc", "a rare status"),
    ("visibility=public&limit=100", "public"),
    ("visibility=shared&member_status=accepted", "shared and accepted"),
    ("tag=t7&tag=all&limit=100", "two tags"),
    ("size_min=5000&size_max=5100&sort=size:asc", "a range of sizes"),
    ("created_at=gt:2000-01-01T00:00:00Z&limit=100", "since"),
    ("os_distro=debian&limit=100", "a free property"),
    ("os_distro=debian&hw_disk_bus=virtio&tag=t3&sort=name:desc", "properties and a tag"),
    ("os_distro=none", "a property that nothing has"),
    ("owner=p3&sort=disk_format:asc", "an owner"),
    ("os_hidden=true", "hidden"),
];

fn record(at: usize) -> Record {
    let mut image = Record::new(format!("{at:08x}-0000-4000-8000-{:012x}", at * 7919), Some(format!("p{}", at % 20)));
    image.name = Some(format!("image-{at}"));
    image.status = if at.is_multiple_of(200) { Status::Queued } else { Status::Active };
    image.visibility = match at % 10 {
        0 => Visibility::Public,
        1 => Visibility::Community,
        2..=5 => Visibility::Private,
        _ => Visibility::Shared,
    };
    image.size = Some((at * 31 % 10_000) as u64);
    image.disk_format = Some(["raw", "qcow2", "iso"][at % 3].to_owned());
    image.container_format = Some("bare".to_owned());
    image.checksum = Some(format!("{at:032x}"));
    image.os_hash_value = Some(format!("{at:0128x}"));
    image.os_hidden = at % 500 == 1;
    image.tags = [format!("t{}", at % 50), "all".to_owned()].into();
    let distro = ["debian", "ubuntu", "fedora", "alma", "suse"][at % 5];
    for (name, value) in
        [("os_distro", distro), ("hw_disk_bus", "virtio"), ("os_type", "linux"), ("hw_rng_model", "virtio")]
    {
        image.properties.insert(name.to_owned(), Some(value.to_owned()));
    }
    image
}

async fn fill(store: &Store, images: usize) {
    for from in (0..images).step_by(500) {
        let written = store.write(move |tx| {
            Box::pin(async move {
                for at in from..(from + 500).min(images) {
                    tx.insert(&record(at)).await?;
                }
                Ok::<_, Fault>(())
            })
        });
        written.await.unwrap();
    }
    for at in (6..images).step_by(100) {
        pilvi_image::member::ops::add(store, &record(at).id, "p3").await.unwrap();
        let accepted = pilvi_image::member::model::Acceptance::Accepted;
        pilvi_image::member::ops::answer(store, &record(at).id, "p3", accepted).await.unwrap();
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let images: usize = arguments.next().map_or(10_000, |n| n.parse().unwrap());
    let requests: usize = arguments.next().map_or(200, |n| n.parse().unwrap());
    let place = arguments.next().unwrap_or_else(|| ".".to_owned());
    let directory = tempfile::tempdir_in(if place.contains("://") { "." } else { &place }).unwrap();
    let url =
        if place.contains("://") { place } else { format!("sqlite:{}", directory.path().join("store.db").display()) };
    let store = Store::open(&url, kinds()).await.unwrap();
    fill(&store, images).await;
    let svc = Image::new(store, Config::new(directory.path().join("images"))).unwrap();
    let app = App::new(|authenticator| service().mount(svc, Mounting { authenticator, policy_file: None }).unwrap());
    println!("{images} images, {requests} requests each, through the whole kit (token, rule, store, JSON)");
    for (who, roles) in [("p3", &["member", "reader"][..]), ("ops", &["admin", "member", "reader"][..])] {
        let caller = caller(who, roles);
        println!("as {}:", roles[0]);
        for (query, what) in ASKED {
            let mut path = format!("/v2/images?{query}");
            let mut times = Vec::with_capacity(requests);
            let mut items = 0;
            for at in 0..requests {
                let started = Instant::now();
                let answer = app.call("GET", &path, Some(&caller), None).await;
                times.push(started.elapsed());
                assert_eq!(answer.status, 200, "{query}: {:?}", answer.body);
                items = items.max(answer.body["images"].as_array().map_or(0, Vec::len));
                // Deep pages as well as the first.
                path = match answer.body["next"].as_str() {
                    Some(next) if at % 20 != 19 => next.to_owned(),
                    _ => format!("/v2/images?{query}"),
                };
            }
            times.sort();
            let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(Duration::ZERO);
            println!("  {what:<28} {items:>5} images  p50 {:>9.2?}  p99 {:>9.2?}", at(50), at(99));
        }
    }
}
