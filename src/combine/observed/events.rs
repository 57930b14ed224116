use crate::types::Denied;
use crate::units::Name;

/// `held_back`: refusals since the last event, beside this one.
pub(super) fn refused(name: &Name, denied: &Denied, held_back: u64) {
    let retry_after_ms = denied.retry_after().map(|wait| wait.as_millis() as u64);
    tracing::debug!(
        target: "tollgate",
        limit = name.as_str(),
        reason = ?denied.reason(),
        retry_after_ms,
        held_back,
        "refused"
    );
}

pub(super) fn fault(name: &Name, held_back: u64) {
    tracing::warn!(target: "tollgate", limit = name.as_str(), held_back, "the limiter could not decide");
}
