//! Sessions of users and of root, and what they are good for. Source: STS API reference, GetSessionToken.

use longshore_core::policy::PrincipalKind;
use longshore_wire::xml::Writer;

use super::{Answer, Asker, Call};
use crate::error::IdentityError;
use crate::ids;
use crate::query::date;
use crate::session::{self, Of, SessionCredentials, Terms};
use crate::{now, validate};

/// Of root's sessions: an hour. AWS's value.
const ROOT_SECONDS_MAX: u32 = 3_600;

/// Was it signed with short-lived credentials of a user or of root?
fn is_user_session(asker: &Asker) -> bool {
    let kind = &asker.caller.principal().kind;
    asker.caller.access_key_id().starts_with(ids::SESSION_KEY)
        && matches!(kind, PrincipalKind::User { .. } | PrincipalKind::Root)
}

/// A session that was begun without MFA, as all are here, is not served by IAM, and by STS for these alone.
pub(super) fn check_use(asker: &Asker, operation: &str) -> Result<(), IdentityError> {
    if !is_user_session(asker) || ["AssumeRole", "GetCallerIdentity"].contains(&operation) {
        return Ok(());
    }
    Err(match asker.action.starts_with("sts:") {
        true => IdentityError::NotAllowed(format!("Cannot call {operation} with session credentials")),
        false => IdentityError::NoIamWithSession,
    })
}

pub(super) async fn get_session_token(mut call: Call) -> Result<Answer, IdentityError> {
    let seconds = call.params.take("DurationSeconds");
    let seconds = seconds.map(|s| validate::number(&s, "durationSeconds", 900, 129_600)).transpose()?;
    call.refuse_mfa()?;
    call.read()?;
    // AWS asks no policy for it, as the session may nothing that its user may not.
    let allowed = call.asker.needs_no_permission();
    let principal = call.asker.caller.principal();
    let (of, seconds) = match &principal.kind {
        PrincipalKind::Root => (Of::Root, seconds.unwrap_or(ROOT_SECONDS_MAX).min(ROOT_SECONDS_MAX)),
        PrincipalKind::User { .. } => (Of::User(principal.user_id.clone()), seconds.unwrap_or(43_200)),
        _ => return Err(IdentityError::NotAllowed("Cannot call GetSessionToken with session credentials".into())),
    };
    let made = session::begin(call.identity.seal(), of, Terms::default(), now(), seconds)?;
    Ok(Answer::new(allowed, move |xml| write(xml, &made)))
}

/// The `Credentials` of an answer.
pub(super) fn write(xml: &mut Writer, made: &SessionCredentials) {
    xml.open("Credentials");
    xml.text("AccessKeyId", &made.access_key_id);
    xml.text("SecretAccessKey", made.secret_access_key.expose());
    xml.text("SessionToken", made.session_token.expose());
    xml.text("Expiration", &date(made.expires_at));
    xml.close();
}

impl Call {
    /// There is no multi-factor authentication, and a code that nobody checks must not be taken for one.
    pub(super) fn refuse_mfa(&mut self) -> Result<(), IdentityError> {
        match [self.params.take("SerialNumber"), self.params.take("TokenCode")] {
            [None, None] => Ok(()),
            _ => Err(IdentityError::NotImplemented(
                "SerialNumber and TokenCode: there is no multi-factor authentication.".into(),
            )),
        }
    }
}
