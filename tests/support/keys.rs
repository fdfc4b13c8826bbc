//! Route keys that share requests, for models of reloads that add and take them away.
//!
//! Requests are of seven kinds: `GET /m/a`, `HEAD /m/a`, `GET /m/b`, `HEAD /m/b`, `GET /x`, `GET /q/r/s`, `POST /m/a`.

/// From the most specific one to the least: the first that matches has a request.
pub(crate) const KEYS: [(&str, [bool; 7]); 8] = {
    const Y: bool = true;
    const N: bool = false;
    [
        ("HEAD /m/a", [N, Y, N, N, N, N, N]),
        ("GET /m/a", [Y, Y, N, N, N, N, N]),
        ("ANY /m/a", [Y, Y, N, N, N, N, Y]),
        ("GET /m/{id}", [Y, Y, Y, Y, N, N, N]),
        ("GET /{any}/{id}", [Y, Y, Y, Y, N, N, N]),
        ("GET /x", [N, N, N, N, Y, N, N]),
        ("ANY /{rest+}", [Y; 7]),
        ("$default", [Y; 7]),
    ]
};

/// Keys with a named method and a literal path.
pub(crate) const MAY_BE_EXEMPT: [usize; 3] = [0, 1, 5];

/// The second one is on a plan.
pub(crate) const CLIENTS: [&str; 2] = ["one", "two"];
