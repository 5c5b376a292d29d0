//! The navigator's lists against the mounted routes, so that they cannot say what is not so.
use crate::world;
use pilvi_kit::navigator::{self, State};

/// (service, documented by the original, at least done)
const FLOOR: &[(&str, usize, usize)] = &[
    ("identity", 299, 200),
    ("image", 55, 40),
    ("placement", 35, 35),
    ("network", 293, 255),
    ("compute", 180, 100),
    ("volume", 173, 120),
];

#[tokio::test]
async fn every_documented_operation_has_a_state_that_is_true() {
    for world in world::all().await {
        let service = &world.app.service;
        let page = navigator::of_mounted(service);
        let idle = navigator::idle_states(&page, &service.documented);
        assert!(idle.is_empty(), "{}: lines of states.txt that say nothing: {idle:#?}", page.service);
        let (_, documented, least) = FLOOR.iter().find(|f| f.0 == page.service).expect("a floor for the service");
        assert_eq!(page.operations.len(), *documented, "{}: {}", page.service, page.original);
        assert!(page.done() >= *least, "{}: {} done, the ratchet stands at {least}", page.service, page.done());
        println!("{}: {} of {} done, {} refused", page.service, page.done(), documented, page.refused());
        for operation in page.operations.iter().filter(|o| o.state == State::Done) {
            answers(&world, &operation.method, &operation.path).await;
        }
    }
}

/// What is called done is no wrong method and nothing unimplemented, at the microversion of its route.
async fn answers(world: &world::World, method: &str, path: &str) {
    let path = path.split(['?', ' ']).next().unwrap();
    let shape =
        |p: &str| p.split('/').map(|s| if s.starts_with('{') { "{}" } else { s }.to_owned()).collect::<Vec<_>>();
    let routes = world.app.service.routes();
    let fits = |m: &str| m == method || (method == "HEAD" && m == "GET");
    let Some(route) = routes.iter().find(|r| fits(r.method.as_str()) && shape(r.path) == shape(path)) else {
        // Said by hand: states.txt names the route, and its lines are held against the table.
        return;
    };
    let (url, _) = world.url(route.path);
    let admin = crate::persona::named("admin", &world.names).caller;
    let headers = world.headers(route, None);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    // Without a body nothing is done that a probe would not end.
    let (answer, _) = world.app.probe((method, &url), Some(&admin), None, &headers, None).await;
    assert!(!matches!(answer.status, 405 | 501), "{method} {path} is called done and answers {}", answer.status);
}
