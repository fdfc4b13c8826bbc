use std::time::{Duration, Instant};
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_throttle::{Clients, Rate, Rules, ThrottleLayer, store::{RedisStore, Store, Charge, BucketKey, Budget}};
#[tokio::main(worker_threads = 2)]
async fn main() {
    let url = std::env::var("REDIS_URL").unwrap();
    let store = RedisStore::connect(&url).await.unwrap();
    let rate = || Rate::per_second(1_000).burst(1 << 40);
    let budget = Budget::of_rate(&rate()).unwrap();
    let med = |mut v: Vec<u128>| { v.sort(); v[v.len()/2] as f64 / 1e3 };
    let client = redis::Client::open(url.clone()).unwrap();
    let mut con = client.get_multiplexed_async_connection().await.unwrap();
    for _ in 0..3 {
    let mut t = vec![];
    for _ in 0..3000 { let s = Instant::now(); let _: u64 = redis::cmd("INCR").arg("x").query_async(&mut con).await.unwrap(); t.push(s.elapsed().as_nanos()); }
    println!("incr {}", med(t));
    for n in [1, 3] {
        let charges: Vec<_> = (0..n).map(|i| Charge::new(BucketKey::new(format!("l{i}"), None), budget, 1)).collect();
        let mut t = vec![];
        for _ in 0..3000 { let s = Instant::now(); store.take(&charges).await.unwrap(); t.push(s.elapsed().as_nanos()); }
        println!("store {n}: {}", med(t));
    }
    let clients = Clients::by_header("x-api-key").each(rate()).secret([7; 32]);
    let rules = Rules::new().total(rate()).default_route(rate()).clients(clients);
    let layer = ThrottleLayer::new(rules).unwrap().store_deadline(Duration::from_secs(5)).store(store.clone()).unwrap();
    let svc = layer.layer(service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(())) }));
    let mut t = vec![];
    for i in 0..3000 { let req = Request::get("/").header("x-api-key", format!("c{}", i % 100)).body(()).unwrap(); let s = Instant::now(); svc.clone().oneshot(req).await.unwrap(); t.push(s.elapsed().as_nanos()); }
    println!("layer: {}", med(t));
    }
}
