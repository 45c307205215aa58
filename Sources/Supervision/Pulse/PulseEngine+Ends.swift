import FoundationEssentials

/// The ends of claims: what came of a task, and what led to nothing.
extension PulseEngine {
    /// Looks at every claim of this node: what ended is released, and so is what an earlier run left half done.
    package func settle() async {
        for (key, claim) in state.claims {
            switch (await nodes.fate(of: claim.taskID, on: claim.host), claim.phase) {
            case (.active, .launched): continue
            case (.unreachable, .launched):
                // The lease of a worker that nobody can ask about has run out for everybody.
                guard clock.now.timeIntervalSince(claim.claimedAt) > Double(ClaimProtocol.leaseSeconds) else {
                    continue
                }
                await withdraw(key, reason: "lost", isFailure: true)
            case (.active, _): _ = await edit(key) { $0.claim?.phase = .launched }
            case (.ended(let end), _): await conclude(key, claim, end)
            case (.unknown, .launched): await withdraw(key, reason: "lost", isFailure: true)
            case (.unknown, _), (.unreachable, _): await withdraw(key, reason: "interrupted")
            }
        }
    }

    private func split(_ key: String) -> (repo: String, number: Int)? {
        guard let mark = key.lastIndex(of: "#"), let number = Int(key[key.index(after: mark)...]) else { return nil }
        return (String(key[..<mark]), number)
    }

    private func conclude(_ key: String, _ claim: PulseState.Claim, _ end: PulseEnd) async {
        guard let (repo, number) = split(key) else { return state.edit(key) { $0.claim = nil } }
        let now = clock.now
        let kind = end.outcome?.rawValue ?? end.state.rawValue
        var words = "The worker ended: \(end.reason)."
        if let link = end.pullRequest { words += " Pull request: \(link)" }
        let sessions = (state.issues[key]?.sessions ?? 0) + end.attempts
        let body = ClaimProtocol.release(
            kind, exit: end.exitCode, sessions: sessions, by: speaker, now: now, words: words)
        do throws(GitHubFailure) {
            try await release(key, claim, body, keepsAssignment: end.pullRequest != nil)
        } catch {
            // It stands until it can be released: the next round tries again.
            return problems.append("\(key): \(error)")
        }
        state.edit(key) {
            $0.tokens += end.tokens
            $0.sessions = sessions
        }
        if end.isIdle { state.noteIdleEnd(now: now) }
        if !end.hasSucceeded, end.state != .cancelled { state.noteFailure(key, now: now) }
        // What succeeded isn't looked for again at once: GitHub may show the pull request a little later.
        if end.hasSucceeded { state.edit(key) { $0.retryAt = now.addingTimeInterval(600) } }
        if end.state == .cancelled { state.edit(key) { $0.retryAt = now.addingTimeInterval(3600) } }
        await block(key, repo, number, after: end)
        _ = await edit(key) { $0.claim = nil }
    }

    /// An issue that failed too often, or has used too much, is left to people.
    private func block(_ key: String, _ repo: String, _ number: Int, after end: PulseEnd) async {
        guard let issue = state.issues[key] else { return }
        let why: String
        if issue.failures >= PulseState.maxFailures {
            why = "its workers failed \(issue.failures) times in a row, the last with: \(end.reason)"
        } else if issue.tokens >= PulseState.maxTokens, !end.hasSucceeded {
            why = "its workers have used \(issue.tokens) tokens without coming to an end"
        } else {
            return
        }
        do throws(GitHubFailure) {
            try await gitHub.addLabels(["status:blocked"], to: number, of: repo)
            _ = try await gitHub.comment(
                "Blocked: \(why). Remove the label `status:blocked` when it may be tried again.", on: number, of: repo)
        } catch { problems.append("\(key): \(error)") }
    }

    private func release(_ key: String, _ claim: PulseState.Claim, _ body: String, keepsAssignment: Bool)
        async throws(GitHubFailure)
    {
        guard let (repo, number) = split(key) else { return }
        let lease = ClaimProtocol.lease(
            .terminal, token: claim.nonce, issue: number, attempt: claim.attemptID, by: speaker, now: clock.now)
        if !keepsAssignment {
            for label in ["status:queued", "status:in-progress", "status:claimed"] {
                try await gitHub.removeLabel(label, from: number, of: repo)
            }
            try await gitHub.unassign(login, from: number, of: repo)
        }
        _ = try await gitHub.comment(lease, on: number, of: repo)
        _ = try await gitHub.comment(body, on: number, of: repo)
    }

    /// Takes a claim back that led to nothing.
    /// - Parameter reason: nil for a lost race, of which nothing but the claim itself has to go.
    func withdraw(_ key: String, reason: String?, isFailure: Bool = false) async {
        guard let claim = state.issues[key]?.claim, let (repo, number) = split(key) else { return }
        do throws(GitHubFailure) {
            try await removeClaimComment(claim, repo, number)
            if claim.phase != .claiming {
                let words = "No worker runs on it any more (\(reason ?? "lost"))."
                let body = ClaimProtocol.release(
                    reason ?? "lost", exit: nil, sessions: state.issues[key]?.sessions ?? 0, by: speaker,
                    now: clock.now,
                    words: words)
                try await release(key, claim, body, keepsAssignment: false)
            }
        } catch {
            // It runs out by itself, and the next round tries again.
            return problems.append("\(key): \(error)")
        }
        if isFailure { state.noteFailure(key, now: clock.now) }
        _ = await edit(key) { $0.claim = nil }
    }

    /// After a crash its id may not be known: then it's found by its nonce.
    private func removeClaimComment(_ claim: PulseState.Claim, _ repo: String, _ number: Int)
        async throws(GitHubFailure)
    {
        var id = claim.commentID
        if id == nil {
            let comments = try await gitHub.comments(on: number, of: repo)
            id = comments.first { $0.body.contains("DISPATCH_CLAIM nonce=\(claim.nonce) ") }?.id
        }
        if let id { try await gitHub.deleteComment(id, of: repo) }
    }
}
