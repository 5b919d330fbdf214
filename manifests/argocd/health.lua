-- Argo CD's health of an UltraEngine and of a Snapshot, by their conditions alone. Put it into the
-- ConfigMap argocd-cm as resource.customizations.health.ultraengine.io_UltraEngine and as
-- resource.customizations.health.ultraengine.io_Snapshot; docs/kubernetes/gitops.md has the table.
local seen = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, one in ipairs(obj.status.conditions) do
    seen[one.type] = one
  end
end

local function is(name, status)
  return seen[name] ~= nil and seen[name].status == status
end

if seen.Ready == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not looked at this generation yet"}
end
if is("Stalled", "True") then
  return {status = "Degraded", message = seen.Stalled.message}
end
if is("Paused", "True") then
  return {status = "Suspended", message = seen.Paused.message}
end
if seen.Ready.reason == "PlanOnly" then
  return {status = "Suspended", message = seen.Ready.message}
end
if is("Ready", "True") then
  return {status = "Healthy", message = seen.Ready.message}
end
-- What is away is being brought back, at creation as later: Degraded would end a sync that waits.
return {status = "Progressing", message = seen.Ready.message}
