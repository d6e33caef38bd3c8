//! What an error of the server or of the connection means to a gateway.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::limits::StoreFault;

/// What kind of fault an error is.
pub(super) fn kind(error: &RedisError) -> StoreFault {
    if error.is_timeout() {
        return StoreFault::Timeout;
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => StoreFault::Auth,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => StoreFault::ReadOnly,
        ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown) => StoreFault::Loading,
        ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::Ask) => StoreFault::Moving,
        ErrorKind::Server(ServerErrorKind::ClusterDown | ServerErrorKind::Moved)
        | ErrorKind::ClusterConnectionNotFound => StoreFault::ClusterDown,
        ErrorKind::Server(ServerErrorKind::CrossSlot) => StoreFault::Refused,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => StoreFault::Garbled,
        ErrorKind::Extension | ErrorKind::Server(ServerErrorKind::ResponseError) => by_code(error),
        _ => StoreFault::Unavailable,
    }
}

fn by_code(error: &RedisError) -> StoreFault {
    let detail = error.detail().unwrap_or_default();
    match error.code().unwrap_or_default() {
        "OOM" => StoreFault::OutOfMemory,
        "NOAUTH" | "WRONGPASS" => StoreFault::Auth,
        "BUSY" => StoreFault::Busy,
        "MISCONF" | "NOREPLICAS" => StoreFault::ReadOnly,
        "ERR" if detail.starts_with("max number of clients") => StoreFault::Unavailable,
        _ => StoreFault::Refused,
    }
}

/// Whether nothing good will come over this connection any more: it is broken, or another server is wanted.
pub(super) fn ends_connection(fault: StoreFault) -> bool {
    match fault {
        StoreFault::Unavailable | StoreFault::Garbled | StoreFault::ReadOnly | StoreFault::Auth => true,
        StoreFault::Timeout
        | StoreFault::OutOfMemory
        | StoreFault::Loading
        | StoreFault::ClusterDown
        | StoreFault::Moving
        | StoreFault::Busy
        | StoreFault::Refused => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_one_slot_is_not_taken_for_one_of_the_cluster() {
        for (code, fault) in [
            (ServerErrorKind::TryAgain, StoreFault::Moving),
            (ServerErrorKind::Ask, StoreFault::Moving),
            (ServerErrorKind::ClusterDown, StoreFault::ClusterDown),
            (ServerErrorKind::CrossSlot, StoreFault::Refused),
        ] {
            let error = RedisError::from((ErrorKind::Server(code), "of a test"));
            assert_eq!(kind(&error), fault, "{code:?}");
        }
    }
}
