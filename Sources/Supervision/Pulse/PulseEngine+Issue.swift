import FoundationEssentials

/// One issue: its race, and the launch of its worker.
extension PulseEngine {
    func edit(_ key: String, _ change: (inout PulseState.IssueState) -> Void) async -> Bool {
        state.edit(key, change)
        return await save(state)
    }

    func work(on candidate: Candidate) async -> (PulseDecision.Verdict, String) {
        let (repo, number) = (candidate.repository.slug, candidate.issue.number)
        do throws(GitHubFailure) {
            // Looked at first, so that a race is only run where there's something to win.
            let comments = try await gitHub.comments(on: number, of: repo)
            let standing = ClaimProtocol.standing(comments, assignees: candidate.issue.assignees, now: clock.now)
            if let other = standing.first { return (.lost, "\(other.runner) has claimed it") }
            if try await gitHub.hasPullRequest(for: number, of: repo) {
                return (.skipped, "a pull request refers to it")
            }
        } catch { return (.failed, error.description) }
        let nonce = clock.nonce()
        let claim = PulseState.Claim(
            nonce: nonce, taskID: PulseEngine.taskID(repo, number, nonce), attemptID: clock.nonce(),
            claimedAt: clock.now)
        guard await edit(candidate.key, { $0.claim = claim }) else {
            state.edit(candidate.key) { $0.claim = nil }
            return (.failed, "the claim could not be written down")
        }
        let lost: String
        do throws(GitHubFailure) {
            if let reason = try await contest(candidate, claim) {
                lost = reason
            } else {
                return await launch(candidate, nonce)
            }
        } catch {
            await withdraw(candidate.key, reason: "claim_failed")
            return (.failed, error.description)
        }
        await withdraw(candidate.key, reason: nil)
        return (.lost, lost)
    }

    /// Up to 128 characters, the same for the same claim.
    private static func taskID(_ repo: String, _ number: Int, _ nonce: String) -> String {
        let name = repo.replacing("/", with: "-").suffix(80)
        return "issue-\(name)-\(number)-\(nonce.prefix(8))"
    }

    /// Runs the race for an issue.
    /// - Returns: why it was lost; nil when it was won.
    private func contest(_ candidate: Candidate, _ claim: PulseState.Claim) async throws(GitHubFailure) -> String? {
        let (repo, number) = (candidate.repository.slug, candidate.issue.number)
        let body = ClaimProtocol.claim(claim.nonce, issue: number, by: speaker, now: clock.now)
        let posted = try await gitHub.comment(body, on: number, of: repo)
        state.edit(candidate.key) { $0.claim?.commentID = posted.id }
        _ = await save(state)
        guard await clock.sleep(options.settleTime) else { throw GitHubFailure(.other, "the node is stopping") }
        let issue = try await gitHub.issue(number, of: repo)
        let comments = try await gitHub.comments(on: number, of: repo)
        let standing = ClaimProtocol.standing(comments, assignees: issue.assignees, now: clock.now)
        guard let first = standing.first, standing.contains(where: { $0.nonce == claim.nonce }) else {
            return "its own claim can't be seen"
        }
        guard first.nonce == claim.nonce else { return "\(first.runner) was first" }
        var eligibility = Eligibility(login: login)
        eligibility.requiredLabel = options.requiredLabel
        return eligibility.problem(issue, now: clock.now)
    }

    private func launch(_ candidate: Candidate, _ nonce: String) async -> (PulseDecision.Verdict, String) {
        let (repo, number, key) = (candidate.repository.slug, candidate.issue.number, candidate.key)
        do throws(GitHubFailure) {
            guard await edit(key, { $0.claim?.phase = .won }), let claim = state.issues[key]?.claim else {
                throw GitHubFailure(.other, "the claim could not be written down")
            }
            try await gitHub.assign(login, to: number, of: repo)
            // Another may have been assigned at the same moment.
            let assignees = try await gitHub.issue(number, of: repo).assignees
            guard assignees.map({ $0.lowercased() }) == [login.lowercased()] else {
                throw GitHubFailure(.other, "it is assigned to \(assignees.joined(separator: ", "))")
            }
            try await gitHub.addLabels(["status:queued"], to: number, of: repo)
            let lease = ClaimProtocol.lease(
                .prelaunch, token: nonce, issue: number, attempt: claim.attemptID, by: speaker, now: clock.now)
            _ = try await gitHub.comment(lease, on: number, of: repo)
            let request = try await request(for: candidate, claim)
            switch await nodes.place(request) {
            case .placed(let host, let pid): return await launched(candidate, claim, host: host, pid: pid)
            case .refused(let reason): throw GitHubFailure(.other, reason)
            case .uncertain(let host, let reason):
                // It counts as launched until that node says otherwise.
                _ = await edit(key) {
                    $0.claim?.phase = .launched
                    $0.claim?.host = host
                }
                return (.failed, "\(host) may have it: \(reason)")
            }
        } catch {
            await withdraw(key, reason: "launch_failed")
            return (.failed, error.description)
        }
    }

    private func request(for candidate: Candidate, _ claim: PulseState.Claim) async throws(GitHubFailure)
        -> DispatchRequest
    {
        let (repo, number) = (candidate.repository.slug, candidate.issue.number)
        let earlier = try await gitHub.branches(beginning: "feature/auto-", of: repo).last {
            $0.hasSuffix("-gh\(number)")
        }
        var request = DispatchRequest(
            repo: repo, prompt: "/full-loop Implement issue #\(number) (\(candidate.issue.url))")
        request.id = claim.taskID
        request.branch = earlier ?? "feature/auto-\(PulseEngine.stamp(clock.now))-gh\(number)"
        request.baseBranch = candidate.repository.baseBranch
        request.issue = IssueContext(
            number: number, title: candidate.issue.title, login: login, leaseToken: claim.nonce, device: state.device,
            attemptID: claim.attemptID)
        return request
    }

    /// `YYYYMMDD-HHMMSS`, in UTC.
    private static func stamp(_ date: Date) -> String {
        let digits = date.formatted(.iso8601).filter(\.isNumber)
        return "\(digits.prefix(8))-\(digits.dropFirst(8).prefix(6))"
    }

    private func launched(_ candidate: Candidate, _ claim: PulseState.Claim, host: String?, pid: Int32?) async
        -> (PulseDecision.Verdict, String)
    {
        let (repo, number) = (candidate.repository.slug, candidate.issue.number)
        _ = await edit(candidate.key) {
            $0.claim?.phase = .launched
            $0.claim?.host = host
        }
        let tier = candidate.issue.labels.first { $0.hasPrefix("tier:") }?.dropFirst(5) ?? "standard"
        let words = ClaimProtocol.dispatching(
            token: claim.nonce, issue: number, attempt: claim.attemptID,
            claim: state.issues[candidate.key]?.claim?.commentID ?? 0, pid: pid, model: options.agentModel,
            tier: String(tier), by: speaker)
        let lease = ClaimProtocol.lease(
            .ready, token: claim.nonce, issue: number, attempt: claim.attemptID, by: speaker, now: clock.now)
        // The worker runs: what GitHub doesn't take now doesn't end it.
        for body in [lease, words] {
            do throws(GitHubFailure) { _ = try await gitHub.comment(body, on: number, of: repo) } catch {
                problems.append("\(candidate.key): \(error)")
            }
        }
        do throws(GitHubFailure) {
            try await gitHub.addLabels(["status:in-progress"], to: number, of: repo)
            for label in ["status:queued", "status:available"] {
                try await gitHub.removeLabel(label, from: number, of: repo)
            }
        } catch { problems.append("\(candidate.key): \(error)") }
        return (.launched, host.map { "on \($0)" } ?? "on this node")
    }
}
