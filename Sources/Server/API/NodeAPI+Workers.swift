import Supervision

extension NodeAPI {
    func status() async -> HTTPResponse {
        let status = await supervisor.status()
        let pulse = await pulse.current
        return .json(
            200,
            StatusView(
                status: status.isDraining ? "draining" : status.degraded.isEmpty ? "ok" : "degraded",
                version: settings.version, uptime_seconds: Int(status.uptime.seconds),
                workers: .init(active: status.active, max: status.max, available: max(0, status.max - status.active)),
                queue: .init(length: status.queued),
                memory: .init(total_mb: status.memory.totalMB, available_mb: status.memory.availableMB),
                pulse: PulseSummary(pulse),
                disk: status.disk.map {
                    .init(free_mb: $0.freeMB, total_mb: $0.totalMB, workspace_mb: $0.workspaceMB, logs_mb: $0.logsMB)
                }, kept_worktrees: status.keptWorktrees,
                sandbox: .init(
                    mode: status.sandbox.mode.rawValue, landlock_version: status.sandbox.landlockVersion,
                    active: status.sandbox.active, missing: status.sandbox.missing),
                capacity: status.advice.map {
                    .init(
                        tasks: $0.tasks, peak_memory_mb: $0.peakMemoryMB, recommended_max_concurrent: $0.maxConcurrent)
                },
                degraded: status.degraded,
                configuration_problems: settings.configurationProblems))
    }

    func workers() async -> HTTPResponse {
        let now = supervisor.services.ambient.now()
        var views: [WorkerView] = []
        for record in await supervisor.active() {
            let use = await supervisor.worker(record.id)?.use
            views.append(WorkerView(record, now: now, position: await supervisor.position(of: record.id), use: use))
        }
        return .json(200, WorkersView(workers: views))
    }

    func worker(_ id: String) async -> HTTPResponse {
        guard Names.problem(taskID: id) == nil, let record = await supervisor.record(of: id) else { return .noTask(id) }
        let position = await supervisor.position(of: id)
        let use = await supervisor.worker(id)?.use
        let now = supervisor.services.ambient.now()
        return .json(200, WorkerView(record, now: now, position: position, use: use, isDetailed: true))
    }

    func changes(_ id: String) async -> HTTPResponse {
        guard Names.problem(taskID: id) == nil else { return .noTask(id) }
        do throws(ChangesRefusal) {
            return .json(200, ChangesView(id, try await supervisor.changes(of: id)))
        } catch {
            switch error {
            case .unknownTask: return .noTask(id)
            case .noWorktree(let sentence): return .error(404, ErrorView("There are no changes to tell: \(sentence)."))
            case .busy: return .retryLater(503, ErrorView("Other worktrees are being read now."), after: 2)
            case .failed(let sentence): return .error(500, ErrorView("The changes can't be read: \(sentence)."))
            }
        }
    }

    func cancel(_ id: String) async -> HTTPResponse {
        guard Names.problem(taskID: id) == nil, await supervisor.cancel(id) else {
            var error = ErrorView("No task with this id is active.")
            error.task_id = String(id.prefix(128))
            return .error(404, error)
        }
        return .json(200, CancelView(task_id: id))
    }

    // MARK: Dispatch

    /// Seconds that a client waits when no slot is free.
    private static let retryWhenFull = 30
    private static let retryWhenUnavailable = 10

    func dispatch(_ request: HTTPRequest) async -> HTTPResponse {
        let wanted: DispatchRequest
        do {
            wanted = try DispatchBody.parse(request.body)
        } catch {
            var view = ErrorView((error as? FieldError)?.message ?? "The body can't be read.")
            view.field = (error as? FieldError)?.field
            return .error(400, view)
        }
        do throws(DispatchRefusal) {
            let receipt = try await supervisor.dispatch(wanted)
            return .json(
                202,
                DispatchView(
                    task_id: receipt.id, status: receipt.position == nil ? "dispatched" : "queued", pid: receipt.pid,
                    repo: receipt.repo, position: receipt.position))
        } catch { return refusal(error) }
    }

    private func refusal(_ refusal: DispatchRefusal) -> HTTPResponse {
        switch refusal {
        case .repoNotAllowed(let repo):
            var error = ErrorView("This node doesn't work on \(repo): it isn't in dispatch.allowed_repos.")
            error.field = "repo"
            return .error(403, error)
        case .callbackNotAllowed(let url):
            var error = ErrorView("\(url) isn't on a host of notify.allowed_hosts.")
            error.field = "callback_url"
            return .error(403, error)
        case .alreadyActive(let id):
            var error = ErrorView("A task with the id \(id) is active already.")
            error.task_id = id
            return .error(409, error)
        case .cannotContinue(let reason):
            var error = ErrorView("The task can't be continued: \(reason).")
            error.field = "continue_task"
            return .error(409, error)
        case .noSlot(let active, let max):
            return full("All \(max) slots of this node are taken.", active, max)
        case .noMemory(let active, let max, let availableMB, let neededMB):
            var error = ErrorView("There isn't enough free memory for another worker.")
            (error.active, error.max, error.available_mb, error.needed_mb) = (active, max, availableMB, neededMB)
            return .retryLater(429, error, after: NodeAPI.retryWhenFull)
        case .queueFull(let active, let max, let limit):
            return full("The queue is full.", active, max, limit: limit)
        case .draining:
            return .retryLater(503, ErrorView("The node is stopping."), after: NodeAPI.retryWhenUnavailable)
        case .unavailable(let reason):
            return .retryLater(
                503, ErrorView("The task was not taken: \(reason)."), after: NodeAPI.retryWhenUnavailable)
        }
    }

    private func full(_ sentence: String, _ active: Int, _ max: Int, limit: Int? = nil) -> HTTPResponse {
        var error = ErrorView(sentence)
        (error.active, error.max, error.limit) = (active, max, limit)
        return .retryLater(429, error, after: NodeAPI.retryWhenFull)
    }
}

extension HTTPResponse {
    static func noTask(_ id: String) -> HTTPResponse {
        var error = ErrorView("This node knows no task with this id.")
        error.task_id = String(id.prefix(128))
        return .error(404, error)
    }
}
