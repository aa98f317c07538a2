//! Definitions shared by CloudTrail's own records and their forms in OCSF and ECS.

/// Values in place of an address for calls by AWS: a service's name, or `AWS Internal`. Source: AWS CloudTrail user
/// guide, "CloudTrail record contents", `sourceIPAddress`.
pub(crate) const SERVICES: &[&str] =
    &["*.amazonaws.com", "*.amazonaws.com.cn", "*.amazon.com", "*.aws.internal", "AWS Internal*", "*.amazonaws.eu"];

/// Type of a key by its id. Source: AWS IAM user guide, "IAM identifiers", unique identifiers.
pub(crate) const KEY_TYPES: &[(&str, &str)] = &[("ASIA*", "session"), ("AKIA*", "api_key"), ("ACCA*", "api_key")];

/// Status of the response by its error code: 401 if the credential was rejected, 403 if it was accepted and lacks
/// permission. Other codes are mostly mistakes of the caller. Source: the AWS API references' lists of common errors,
/// and those of IAM, STS, Amazon EC2, IAM Identity Center OIDC and Amazon Cognito.
pub(crate) const ERRORS: &[(&str, &str)] = &[
    ("*ExpiredToken*", "401"),
    ("*InvalidClientTokenId*", "401"),
    ("*InvalidAccessKeyId*", "401"),
    ("*UnrecognizedClient*", "401"),
    ("*SignatureDoesNotMatch*", "401"),
    ("*InvalidSignature*", "401"),
    ("*IncompleteSignature*", "401"),
    ("*AuthFailure.*", "403"),
    ("*AuthFailure*", "401"),
    ("*AuthenticationFailed*", "401"),
    ("*MissingAuthenticationToken*", "401"),
    ("*InvalidToken*", "401"),
    ("*InvalidSecurityToken*", "401"),
    ("*TokenRefreshRequired*", "401"),
    ("*RequestExpired*", "401"),
    ("*InvalidIdentityToken*", "401"),
    ("*IDPRejectedClaim*", "401"),
    ("*InvalidGrantException*", "401"),
    ("*InvalidClientException*", "401"),
    ("*UnauthorizedClientException*", "401"),
    ("*AccessDenied*", "403"),
    ("*Unauthorized*", "403"),
    ("*Forbidden*", "403"),
    ("*NotAuthorized*", "403"),
    ("*OptInRequired*", "403"),
    ("*Throttl*", "429"),
    ("*TooManyRequests*", "429"),
    ("*RequestLimitExceeded*", "429"),
    ("*SlowDown*", "503"),
    ("*ServiceUnavailable*", "503"),
    ("*Internal*", "500"),
    ("*NotFound*", "404"),
    ("*NoSuch*", "404"),
    ("*", "400"),
];

/// A user pool answers failed sign-ins with the code of missing permissions.
pub(crate) const COGNITO: &[&str] = &["cognito-idp.amazonaws.com"];
pub(crate) const COGNITO_ERRORS: &[(&str, &str)] = &[
    ("NotAuthorizedException", "401"),
    ("UserNotFoundException", "401"),
    ("UserNotConfirmedException", "401"),
    ("PasswordResetRequiredException", "401"),
    ("CodeMismatchException", "401"),
    ("ExpiredCodeException", "401"),
];

/// Status of a sign-in by the result of each step.
pub(crate) const SIGN_IN: &[(&str, &str)] = &[("Failure", "401")];

/// Services that issue temporary keys.
pub(crate) const ISSUERS: &[&str] =
    &["sts.amazonaws.com", "eks-auth.amazonaws.com", "cognito-identity.amazonaws.com", "sts.amazonaws.com.cn"];

/// Calls that issue the keys of a role's session.
pub(crate) const ASSUME_ROLE: &[&str] = &["AssumeRole*"];
/// Calls that issue a user's own temporary keys.
pub(crate) const OWN_SESSION: &[&str] = &["GetSessionToken", "GetCredentialsForIdentity"];

pub(crate) const IAM: &[&str] = &["iam.amazonaws.com"];

/// Calls that give an IAM user a secret: a key, or credentials of one service (Bedrock, CodeCommit, Keyspaces).
pub(crate) const ISSUE_KEY: &[&str] = &["CreateAccessKey"];
pub(crate) const ISSUE_SERVICE_KEY: &[&str] = &["CreateServiceSpecificCredential"];
/// Calls that register a public key or certificate of an IAM user.
pub(crate) const ISSUE_PUBLIC_KEY: &[&str] = &["UploadSSHPublicKey", "UploadSigningCertificate"];
pub(crate) const DELETE_KEY: &[&str] =
    &["DeleteAccessKey", "DeleteServiceSpecificCredential", "DeleteSSHPublicKey", "DeleteSigningCertificate"];
pub(crate) const UPDATE_KEY: &[&str] =
    &["UpdateAccessKey", "UpdateServiceSpecificCredential", "UpdateSSHPublicKey", "UpdateSigningCertificate"];
pub(crate) const INACTIVE: &[&str] = &["Inactive"];
pub(crate) const ACTIVE: &[&str] = &["Active"];

/// Calls that change the password or a factor of an IAM user.
pub(crate) const CHANGE_CREDENTIAL: &[&str] = &[
    "CreateLoginProfile",
    "UpdateLoginProfile",
    "DeleteLoginProfile",
    "ChangePassword",
    "EnableMFADevice",
    "DeactivateMFADevice",
    "ResyncMFADevice",
    "ResetServiceSpecificCredential",
];
pub(crate) const DELETE_USER: &[&str] = &["DeleteUser"];

/// IAM Roles Anywhere: issues keys to holders of a certificate.
pub(crate) const ROLES_ANYWHERE: &[&str] = &["rolesanywhere.amazonaws.com"];
pub(crate) const CREATE_SESSION: &[&str] = &["CreateSession"];

/// The inline policy by which the console and AWS's own documentation revoke a role's sessions. Source: AWS IAM user guide,
/// "Revoking IAM role temporary security credentials".
pub(crate) const REVOKING_POLICY: &[&str] = &["AWSRevokeOlderSessions"];

/// The sign-in page, where the root user changes a password. Source: AWS CloudTrail user guide, "AWS Management Console
/// sign-in events".
pub(crate) const SIGN_IN_PAGE: &[&str] = &["signin.amazonaws.com"];
pub(crate) const CHANGE_ROOT_CREDENTIAL: &[&str] = &["PasswordUpdated", "PasswordRecoveryCompleted"];

/// The directory of IAM Identity Center.
pub(crate) const DIRECTORY: &[&str] =
    &["sso-directory.amazonaws.com", "identitystore.amazonaws.com", "sso.amazonaws.com"];
pub(crate) const CHANGE_DIRECTORY_CREDENTIAL: &[&str] = &[
    "UpdatePassword",
    "CompleteVirtualMfaDeviceRegistration",
    "CompleteWebAuthnDeviceRegistration",
    "DeleteMfaDeviceForUser",
];
pub(crate) const DELETE_DIRECTORY_USER: &[&str] = &["DeleteUser", "DisableUser"];
/// The end of a session of the access portal.
pub(crate) const LOGOUT: &[&str] = &["Logout", "SignOut"];
