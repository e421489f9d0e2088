//! A CSV object whose columns the job names: its own lines are what is pinned.

use futures::StreamExt;

use super::{Unprepared, check_whole, content, pinning, unreadable};
use crate::engine::{Engine, pinned};
use crate::ports::ObjectBody;
use crate::shape::Manifest;

pub(super) async fn pin(
    engine: &Engine,
    job_id: &str,
    manifest: &Manifest,
    mut object: ObjectBody,
    growth: Option<pinned::Growth>,
) -> Result<u64, Unprepared> {
    let format = manifest.row_format().ok_or_else(|| content("Invalid Manifest Content"))?;
    pinning::pin(engine, job_id, format, growth, |feed| async move {
        let mut fetched = 0;
        while let Some(piece) = object.stream.next().await {
            let piece = piece.map_err(unreadable)?;
            fetched += piece.len() as u64;
            feed.send(piece).await?;
        }
        check_whole(object.size, fetched)
    })
    .await
}
