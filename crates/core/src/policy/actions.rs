//! The actions of the services that this server is, so that a misspelt one is told instead of granting nothing, or denying nothing.
//!
//! Source: service authorization reference, "Actions, resources, and condition keys" for Amazon S3 (with S3 Batch Operations), AWS Lambda,
//! IAM and STS. All of them, not only what is served here: a policy that is right on AWS is right here.

use super::pattern::{Pattern, Syntax};

/// A service's prefix, and its actions between spaces.
const SERVICES: &[(&str, &str)] = &[("s3", S3), ("lambda", LAMBDA), ("iam", IAM), ("sts", STS)];

/// Names of operations that people take for actions, and what they are called in a policy, in lower case.
const OPERATIONS: &[(&str, &str)] = &[
    ("s3:completemultipartupload", "s3:PutObject"),
    ("s3:copyobject", "s3:GetObject and s3:PutObject"),
    ("s3:createmultipartupload", "s3:PutObject"),
    ("s3:deleteobjects", "s3:DeleteObject"),
    ("s3:getbucketencryption", "s3:GetEncryptionConfiguration"),
    ("s3:getbucketlifecycleconfiguration", "s3:GetLifecycleConfiguration"),
    ("s3:getbucketreplication", "s3:GetReplicationConfiguration"),
    ("s3:headbucket", "s3:ListBucket"),
    ("s3:headobject", "s3:GetObject"),
    ("s3:listbuckets", "s3:ListAllMyBuckets"),
    ("s3:listmultipartuploads", "s3:ListBucketMultipartUploads"),
    ("s3:listobjects", "s3:ListBucket"),
    ("s3:listobjectsv2", "s3:ListBucket"),
    ("s3:listobjectversions", "s3:ListBucketVersions"),
    ("s3:listparts", "s3:ListMultipartUploadParts"),
    ("s3:putbucketencryption", "s3:PutEncryptionConfiguration"),
    ("s3:putbucketlifecycleconfiguration", "s3:PutLifecycleConfiguration"),
    ("s3:uploadpart", "s3:PutObject"),
    ("lambda:invoke", "lambda:InvokeFunction"),
    ("lambda:listprovisionedconcurrencies", "lambda:ListProvisionedConcurrencyConfigs"),
];

#[rustfmt::skip]
const S3: &str = "\
    AbortMultipartUpload AssociateAccessGrantsIdentityCenter BypassGovernanceRetention CreateAccessGrant \
    CreateAccessGrantsInstance CreateAccessGrantsLocation CreateAccessPoint CreateAccessPointForObjectLambda CreateBucket \
    CreateBucketMetadataTableConfiguration CreateJob CreateMultiRegionAccessPoint CreateStorageLensGroup DeleteAccessGrant \
    DeleteAccessGrantsInstance DeleteAccessGrantsInstanceResourcePolicy DeleteAccessGrantsLocation DeleteAccessPoint \
    DeleteAccessPointForObjectLambda DeleteAccessPointPolicy DeleteAccessPointPolicyForObjectLambda DeleteBucket \
    DeleteBucketMetadataTableConfiguration DeleteBucketPolicy DeleteBucketWebsite DeleteJobTagging \
    DeleteMultiRegionAccessPoint DeleteObject DeleteObjectTagging DeleteObjectVersion DeleteObjectVersionTagging \
    DeleteStorageLensConfiguration DeleteStorageLensConfigurationTagging DeleteStorageLensGroup DescribeJob \
    DescribeMultiRegionAccessPointOperation DissociateAccessGrantsIdentityCenter GetAccelerateConfiguration GetAccessGrant \
    GetAccessGrantsInstance GetAccessGrantsInstanceForPrefix GetAccessGrantsInstanceResourcePolicy GetAccessGrantsLocation \
    GetAccessPoint GetAccessPointConfigurationForObjectLambda GetAccessPointForObjectLambda GetAccessPointPolicy \
    GetAccessPointPolicyForObjectLambda GetAccessPointPolicyStatus GetAccessPointPolicyStatusForObjectLambda \
    GetAccountPublicAccessBlock GetAnalyticsConfiguration GetBucketAbac GetBucketAcl GetBucketCORS GetBucketLocation \
    GetBucketLogging GetBucketMetadataTableConfiguration GetBucketNotification GetBucketObjectLockConfiguration \
    GetBucketOwnershipControls GetBucketPolicy GetBucketPolicyStatus GetBucketPublicAccessBlock GetBucketRequestPayment \
    GetBucketTagging GetBucketVersioning GetBucketWebsite GetDataAccess GetEncryptionConfiguration \
    GetIntelligentTieringConfiguration GetInventoryConfiguration GetJobTagging GetLifecycleConfiguration \
    GetMetricsConfiguration GetMultiRegionAccessPoint GetMultiRegionAccessPointPolicy \
    GetMultiRegionAccessPointPolicyStatus GetMultiRegionAccessPointRoutes GetObject GetObjectAcl GetObjectAttributes \
    GetObjectLegalHold GetObjectRetention GetObjectTagging GetObjectTorrent GetObjectVersion GetObjectVersionAcl \
    GetObjectVersionAttributes GetObjectVersionForReplication GetObjectVersionTagging GetObjectVersionTorrent \
    GetReplicationConfiguration GetStorageLensConfiguration GetStorageLensConfigurationTagging GetStorageLensDashboard \
    GetStorageLensGroup InitiateReplication ListAccessGrants ListAccessGrantsInstances ListAccessGrantsLocations \
    ListAccessPoints ListAccessPointsForObjectLambda ListAllMyBuckets ListBucket ListBucketMultipartUploads \
    ListBucketVersions ListCallerAccessGrants ListJobs ListMultiRegionAccessPoints ListMultipartUploadParts \
    ListStorageLensConfigurations ListStorageLensGroups ListTagsForResource ObjectOwnerOverrideToBucketOwner \
    PauseReplication PutAccelerateConfiguration PutAccessGrantsInstanceResourcePolicy \
    PutAccessPointConfigurationForObjectLambda PutAccessPointPolicy PutAccessPointPolicyForObjectLambda \
    PutAccessPointPublicAccessBlock PutAccountPublicAccessBlock PutAnalyticsConfiguration PutBucketAbac PutBucketAcl \
    PutBucketCORS PutBucketLogging PutBucketNotification PutBucketObjectLockConfiguration PutBucketOwnershipControls \
    PutBucketPolicy PutBucketPublicAccessBlock PutBucketRequestPayment PutBucketTagging PutBucketVersioning \
    PutBucketWebsite PutEncryptionConfiguration PutIntelligentTieringConfiguration PutInventoryConfiguration PutJobTagging \
    PutLifecycleConfiguration PutMetricsConfiguration PutMultiRegionAccessPointPolicy PutObject PutObjectAcl \
    PutObjectLegalHold PutObjectRetention PutObjectTagging PutObjectVersionAcl PutObjectVersionTagging \
    PutReplicationConfiguration PutStorageLensConfiguration PutStorageLensConfigurationTagging ReplicateDelete \
    ReplicateObject ReplicateTags RestoreObject SubmitMultiRegionAccessPointRoutes TagResource UntagResource \
    UpdateAccessGrantsLocation UpdateBucketMetadataInventoryTableConfiguration \
    UpdateBucketMetadataJournalTableConfiguration UpdateJobPriority UpdateJobStatus UpdateObjectEncryption \
    UpdateStorageLensGroup";

#[rustfmt::skip]
const LAMBDA: &str = "\
    AddLayerVersionPermission AddPermission CheckpointDurableExecution CreateAlias CreateCapacityProvider \
    CreateCodeSigningConfig CreateEventSourceMapping CreateFunction CreateFunctionUrlConfig DeleteAlias \
    DeleteCapacityProvider DeleteCodeSigningConfig DeleteEventSourceMapping DeleteFunction DeleteFunctionCodeSigningConfig \
    DeleteFunctionConcurrency DeleteFunctionEventInvokeConfig DeleteFunctionUrlConfig DeleteLayerVersion \
    DeleteProvisionedConcurrencyConfig DisableReplication EnableReplication GetAccountSettings GetAlias \
    GetCapacityProvider GetCodeSigningConfig GetDurableExecution GetDurableExecutionHistory GetDurableExecutionState \
    GetEventSourceMapping GetFunction GetFunctionCodeSigningConfig GetFunctionConcurrency GetFunctionConfiguration \
    GetFunctionEventInvokeConfig GetFunctionRecursionConfig GetFunctionScalingConfig GetFunctionUrlConfig GetLayerVersion \
    GetLayerVersionPolicy GetPolicy GetProvisionedConcurrencyConfig GetRuntimeManagementConfig InvokeAsync InvokeFunction \
    InvokeFunctionUrl ListAliases ListCapacityProviders ListCodeSigningConfigs ListDurableExecutionsByFunction \
    ListEventSourceMappings ListFunctionEventInvokeConfigs ListFunctionUrlConfigs ListFunctionVersionsByCapacityProvider \
    ListFunctions ListFunctionsByCodeSigningConfig ListLayerVersions ListLayers ListProvisionedConcurrencyConfigs ListTags \
    ListVersionsByFunction PassCapacityProvider PublishLayerVersion PublishVersion PutFunctionCodeSigningConfig \
    PutFunctionConcurrency PutFunctionEventInvokeConfig PutFunctionRecursionConfig PutFunctionScalingConfig \
    PutProvisionedConcurrencyConfig PutRuntimeManagementConfig RemoveLayerVersionPermission RemovePermission \
    SendDurableExecutionCallbackFailure SendDurableExecutionCallbackHeartbeat SendDurableExecutionCallbackSuccess \
    StopDurableExecution TagResource UntagResource UpdateAlias UpdateCapacityProvider UpdateCodeSigningConfig \
    UpdateEventSourceMapping UpdateFunctionCode UpdateFunctionCodeSigningConfig UpdateFunctionConfiguration \
    UpdateFunctionEventInvokeConfig UpdateFunctionUrlConfig";

#[rustfmt::skip]
const IAM: &str = "\
    AcceptDelegationRequest AddClientIDToOpenIDConnectProvider AddRoleToInstanceProfile AddUserToGroup \
    AssociateDelegationRequest AttachGroupPolicy AttachRolePolicy AttachUserPolicy ChangePassword CreateAccessKey \
    CreateAccountAlias CreateDelegationRequest CreateGroup CreateInstanceProfile CreateLoginProfile \
    CreateOpenIDConnectProvider CreatePolicy CreatePolicyVersion CreateRole CreateSAMLProvider CreateServiceLinkedRole \
    CreateServiceSpecificCredential CreateUser CreateVirtualMFADevice DeactivateMFADevice DeleteAccessKey \
    DeleteAccountAlias DeleteAccountPasswordPolicy DeleteCloudFrontPublicKey DeleteGroup DeleteGroupPolicy \
    DeleteInstanceProfile DeleteLoginProfile DeleteOpenIDConnectProvider DeletePolicy DeletePolicyVersion DeleteRole \
    DeleteRolePermissionsBoundary DeleteRolePolicy DeleteSAMLProvider DeleteSSHPublicKey DeleteServerCertificate \
    DeleteServiceLinkedRole DeleteServiceSpecificCredential DeleteSigningCertificate DeleteUser \
    DeleteUserPermissionsBoundary DeleteUserPolicy DeleteVirtualMFADevice DetachGroupPolicy DetachRolePolicy \
    DetachUserPolicy DisableOrganizationsRootCredentialsManagement DisableOrganizationsRootSessions \
    DisableOutboundWebIdentityFederation EnableMFADevice EnableOrganizationsRootCredentialsManagement \
    EnableOrganizationsRootSessions EnableOutboundWebIdentityFederation GenerateCredentialReport \
    GenerateOrganizationsAccessReport GenerateServiceLastAccessedDetails GetAccessKeyLastUsed \
    GetAccountAuthorizationDetails GetAccountEmailAddress GetAccountName GetAccountPasswordPolicy GetAccountSummary \
    GetCloudFrontPublicKey GetContextKeysForCustomPolicy GetContextKeysForPrincipalPolicy GetCredentialReport \
    GetDelegationRequest GetGroup GetGroupPolicy GetHumanReadableSummary GetInstanceProfile GetLoginProfile GetMFADevice \
    GetOpenIDConnectProvider GetOrganizationsAccessReport GetOutboundWebIdentityFederationInfo GetPolicy GetPolicyVersion \
    GetRole GetRolePolicy GetSAMLProvider GetSSHPublicKey GetServerCertificate GetServiceLastAccessedDetails \
    GetServiceLastAccessedDetailsWithEntities GetServiceLinkedRoleDeletionStatus GetUser GetUserPolicy ListAccessKeys \
    ListAccountAliases ListAttachedGroupPolicies ListAttachedRolePolicies ListAttachedUserPolicies \
    ListCloudFrontPublicKeys ListDelegationRequests ListEntitiesForPolicy ListGroupPolicies ListGroups ListGroupsForUser \
    ListInstanceProfileTags ListInstanceProfiles ListInstanceProfilesForRole ListMFADeviceTags ListMFADevices \
    ListOpenIDConnectProviderTags ListOpenIDConnectProviders ListOrganizationsFeatures ListPolicies \
    ListPoliciesGrantingServiceAccess ListPolicyTags ListPolicyVersions ListRolePolicies ListRoleTags ListRoles \
    ListSAMLProviderTags ListSAMLProviders ListSSHPublicKeys ListSTSRegionalEndpointsStatus ListServerCertificateTags \
    ListServerCertificates ListServiceSpecificCredentials ListSigningCertificates ListUserPolicies ListUserTags ListUsers \
    ListVirtualMFADevices PassRole PutGroupPolicy PutRolePermissionsBoundary PutRolePolicy PutUserPermissionsBoundary \
    PutUserPolicy RejectDelegationRequest RemoveClientIDFromOpenIDConnectProvider RemoveRoleFromInstanceProfile \
    RemoveUserFromGroup ResetServiceSpecificCredential ResyncMFADevice SendDelegationToken SetDefaultPolicyVersion \
    SetSTSRegionalEndpointStatus SetSecurityTokenServicePreferences SimulateCustomPolicy SimulatePrincipalPolicy \
    TagInstanceProfile TagMFADevice TagOpenIDConnectProvider TagPolicy TagRole TagSAMLProvider TagServerCertificate \
    TagUser UntagInstanceProfile UntagMFADevice UntagOpenIDConnectProvider UntagPolicy UntagRole UntagSAMLProvider \
    UntagServerCertificate UntagUser UpdateAccessKey UpdateAccountEmailAddress UpdateAccountName \
    UpdateAccountPasswordPolicy UpdateAssumeRolePolicy UpdateCloudFrontPublicKey UpdateGroup UpdateLoginProfile \
    UpdateOpenIDConnectProviderThumbprint UpdateRole UpdateRoleDescription UpdateSAMLProvider UpdateSSHPublicKey \
    UpdateServerCertificate UpdateServiceSpecificCredential UpdateSigningCertificate UpdateUser UploadCloudFrontPublicKey \
    UploadSSHPublicKey UploadServerCertificate UploadSigningCertificate";

#[rustfmt::skip]
const STS: &str = "\
    AssumeRole AssumeRoleWithSAML AssumeRoleWithWebIdentity AssumeRoot DecodeAuthorizationMessage GetAccessKeyInfo \
    GetCallerIdentity GetDelegatedAccessToken GetFederationToken GetServiceBearerToken GetSessionToken GetWebIdentityToken \
    SetContext SetSourceIdentity TagGetWebIdentityToken TagSession";

/// What is wrong with an action of a known service that it does not have; `None` where it has it, or where the service is none
/// of those known here.
pub fn fault(action: &str) -> Option<String> {
    let lower = action.to_ascii_lowercase();
    let (service, name) = lower.split_once(':')?;
    let (service, names) = SERVICES.iter().find(|(known, _)| *known == service)?;
    let pattern = Pattern::read(name, Syntax { wildcards: true, variables: false }).ok()?;
    if names.split(' ').any(|known| pattern.fits_plainly(&known.to_ascii_lowercase())) {
        return None;
    }
    if pattern.is_wild() {
        return Some(format!("{action} fits no action of {service}"));
    }
    if let Some((_, meant)) = OPERATIONS.iter().find(|(operation, _)| *operation == lower) {
        return Some(format!("{action} is an operation and no action: it asks for {meant}"));
    }
    let hint = nearest(name, names.split(' ')).map_or(String::new(), |near| format!("; is {service}:{near} meant?"));
    Some(format!("there is no action {action}{hint}"))
}

/// The name that a misspelt one is nearest to, if one is near: a third of its letters may be others.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A longer one is no name of anything, and the distance takes the product of both lengths.
    const NAME_CHARS_MAX: usize = 64;
    let lower: Vec<char> = name.to_lowercase().chars().take(NAME_CHARS_MAX + 1).collect();
    if lower.len() > NAME_CHARS_MAX {
        return None;
    }
    let (near, distance) = names.map(|known| (known, distance(&lower, known))).min_by_key(|(_, distance)| *distance)?;
    (distance <= 1 + lower.len() / 4).then_some(near)
}

/// How many letters have to be put in, taken out or changed.
fn distance(from: &[char], to: &str) -> usize {
    let mut row: Vec<usize> = (0..=from.len()).collect();
    for (n, c) in to.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = n + 1;
        for at in 1..row.len() {
            let changed = diagonal + usize::from(from[at - 1] != c);
            diagonal = row[at];
            row[at] = changed.min(row[at] + 1).min(row[at - 1] + 1);
        }
    }
    row[from.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_its_service_does_not_have_is_told_with_the_one_that_was_meant() {
        let cases = [
            ("s3:GetObject", None),
            ("S3:getobject", None),
            ("s3:Get*", None),
            ("s3:*", None),
            ("s3:?etObject", None),
            ("lambda:InvokeFunction", None),
            ("iam:PassRole", None),
            ("sts:AssumeRole", None),
            ("ec2:NoSuchThing", None),
            ("s3:GetObjekt", Some("there is no action s3:GetObjekt; is s3:GetObject meant?")),
            ("s3:CreateJobs", Some("there is no action s3:CreateJobs; is s3:CreateJob meant?")),
            ("s3:HeadObject", Some("s3:HeadObject is an operation and no action: it asks for s3:GetObject")),
            ("lambda:Invoke", Some("lambda:Invoke is an operation and no action: it asks for lambda:InvokeFunction")),
            ("iam:Xyzzy", Some("there is no action iam:Xyzzy")),
            ("s3:Frobnicate*", Some("s3:Frobnicate* fits no action of s3")),
        ];
        for (action, wanted) in cases {
            assert_eq!(fault(action).as_deref(), wanted, "{action}");
        }
        assert_eq!(fault(&format!("s3:{}", "x".repeat(100_000))).map(|told| told.contains("meant")), Some(false));
    }

    #[test]
    fn what_is_hinted_at_for_an_operation_is_an_action() {
        for (operation, meant) in OPERATIONS {
            assert!(fault(operation).is_some_and(|told| told.contains("is an operation")), "{operation}");
            assert!(meant.split(" and ").all(|action| fault(action).is_none()), "{meant}");
        }
    }
}
