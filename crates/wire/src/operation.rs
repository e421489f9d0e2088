//! One API operation as a value: its name, its route, where it is documented, and the function that serves it.
//!
//! A room lists its operations in one `OPERATIONS` table. The router, the metrics labels and the compatibility page
//! come from that table, so an operation exists nowhere else. What a caller has to be allowed for it stands there, too, and is
//! asked before the operation is served: there is no other way to its handler.

use std::future::Future;
use std::pin::Pin;

use http::Method;

use crate::caller::{Asked, Denied};
use crate::error::ApiError;
use crate::http::{Request, Response, decode};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// How an operation is served. Write it as `|service, call| Box::pin(update_job_priority(service, call))`.
pub type Handler<S> = for<'a> fn(&'a S, Call) -> BoxFuture<'a, Result<Response, ApiError>>;
/// What an operation asks for, of this request. It may look at what there is (`s3:ExistingJobPriority`), but changes nothing. An
/// empty list: whoever is known may do it. Write it as `|service, call| Box::pin(asks(service, call))`.
pub type Asks<S> = for<'a> fn(&'a S, &'a Call) -> BoxFuture<'a, Result<Vec<Asked>, ApiError>>;

/// One operation of the service `S`.
pub struct Operation<S: 'static> {
    /// As AWS spells it: `UpdateJobPriority`.
    pub name: &'static str,
    pub route: Route,
    /// The AWS page that describes it.
    pub spec: &'static str,
    pub asks: Asks<S>,
    pub handle: Handler<S>,
}

/// Method and path template. `{Name}` takes one path segment; one trailing slash on the wire is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(pub &'static str, pub &'static str);

/// A request that has found its operation.
#[derive(Debug)]
pub struct Call {
    pub request: Request,
    labels: Vec<(&'static str, String)>,
}

impl Call {
    /// The path segment that stood where the route has `{name}`, percent-decoded once. Empty if the route has none,
    /// which a test of the route would show.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v.as_str())
    }
}

/// What a path and method lead to.
pub enum Routed<'o, S: 'static> {
    Found(&'o Operation<S>, Vec<(&'static str, String)>),
    /// The path is known, the method is not.
    WrongMethod,
    NotFound,
}

/// Finds the operation for a raw (still encoded) path.
pub fn route<'o, S>(operations: &'o [Operation<S>], method: &Method, path: &str) -> Routed<'o, S> {
    let mut path_known = false;
    for operation in operations {
        if let Some(labels) = match_path(operation.route.1, path) {
            if operation.route.0 == method.as_str() {
                return Routed::Found(operation, labels);
            }
            path_known = true;
        }
    }
    if path_known { Routed::WrongMethod } else { Routed::NotFound }
}

/// Routes, asks the policy, and serves. `not_found`, `wrong_method` and `denied` are in the service's own dialect of errors.
pub async fn serve<S>(
    operations: &[Operation<S>],
    service: &S,
    request: Request,
    not_found: ApiError,
    wrong_method: ApiError,
    denied: impl Fn(&Denied) -> ApiError,
) -> Result<Response, ApiError> {
    match route(operations, &request.method, &request.path) {
        Routed::Found(operation, labels) => {
            let call = Call { request, labels };
            for asked in (operation.asks)(service, &call).await? {
                call.request.caller.may(&asked).map_err(|why| denied(&why))?;
            }
            (operation.handle)(service, call).await
        }
        Routed::WrongMethod => Err(wrong_method),
        Routed::NotFound => Err(not_found),
    }
}

fn match_path(template: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut labels = Vec::new();
    let bare = |text: &'_ str| text.strip_suffix('/').map_or(text.len(), str::len);
    let mut wanted = template[..bare(template)].split('/');
    let mut given = path[..bare(path)].split('/');
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(labels),
            (Some(w), Some(g)) => match w.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
                Some(name) if !g.is_empty() => labels.push((name, decode(g))),
                Some(_) => return None,
                None if w == g => {}
                None => return None,
            },
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_takes_one_segment_and_is_decoded_once() {
        let labels =
            match_path("/2015-03-31/functions/{F}/invocations", "/2015-03-31/functions/arn%3Aaws%253A/invocations");
        assert_eq!(labels, Some(vec![("F", "arn:aws%3A".to_owned())]));
    }

    #[test]
    fn a_trailing_slash_is_ignored_and_an_empty_label_is_not_a_label() {
        assert!(match_path("/2015-03-31/functions", "/2015-03-31/functions/").is_some());
        assert!(match_path("/v20180820/jobs/{JobId}", "/v20180820/jobs//").is_none());
        assert!(match_path("/v20180820/jobs/{JobId}", "/v20180820/jobs").is_none());
        assert!(match_path("/v20180820/jobs", "/v20180820/jobs//").is_none());
        assert!(match_path("/v20180820/jobs", "//v20180820/jobs").is_none());
        assert!(match_path("/v20180820/jobs", "/v20180820/%6Aobs").is_none());
        assert!(match_path("/v20180820/jobs", "").is_none());
    }
}
