import Glibc

/// Keeps the task records on disk, one small JSON file each (`tasks/ID.json`), replaced atomically.
///
/// `save` returns once the record would survive a crash or a power loss. Records that come while others are being written
/// are written together, and share the fsync of their folder.
package actor TaskStore {
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    private let loop: EventLoop
    private let folder: String
    private let lane: BlockingLane

    private enum Turn: Sendable {
        case done(SystemError?)
        /// The batch that wrote for others is over: write for all who wait now.
        case lead
    }

    /// What waits to be written: the newest content of each record, nil to remove it.
    private var pending: [String: [UInt8]?] = [:]
    private var waiters: [(id: String, continuation: CheckedContinuation<Turn, Never>)] = []
    private var isWriting = false

    package init(folder: String, on loop: EventLoop) {
        self.folder = folder
        self.loop = loop
        lane = BlockingLane("records")
    }

    /// Makes the record durable.
    /// - Throws: what the storage answered; the file then holds the earlier record.
    package func save(_ record: TaskRecord) async throws(SystemError) { try await write(record.id, record.encoded()) }

    package func remove(_ id: String) async throws(SystemError) { try await write(id, nil) }

    private func write(_ id: String, _ content: [UInt8]?) async throws(SystemError) {
        pending[id] = .some(content)
        if isWriting {
            let turn = await withCheckedContinuation { waiters.append((id, $0)) }
            if case .done(let failure) = turn {
                if let failure { throw failure }
                return
            }
        }
        isWriting = true
        let batch = pending
        let batchWaiters = waiters
        pending = [:]
        waiters = []
        let folder = folder
        let failures = await lane.run { TaskStore.write(batch, in: folder) }
        for waiter in batchWaiters { waiter.continuation.resume(returning: .done(failures[waiter.id])) }
        if waiters.isEmpty { isWriting = false } else { waiters.removeFirst().continuation.resume(returning: .lead) }
        if let failure = failures[id] { throw failure }
    }

    /// Files that are open together: a node may have few descriptors.
    private static let filesAtOnce = 16

    private static func write(_ batch: [String: [UInt8]?], in folder: String) -> [String: SystemError] {
        var failures: [String: SystemError] = [:]
        var rest = batch[...]
        while !rest.isEmpty {
            // All are written before the first fsync: that one's journal commit takes the others along.
            var replacements: [(id: String, file: Files.Replacement)] = []
            for (id, content) in rest.prefix(filesAtOnce) {
                let path = "\(folder)/\(id).json"
                do throws(SystemError) {
                    if let content {
                        replacements.append((id, try Files.Replacement(of: path, with: content)))
                    } else {
                        try Files.remove(path)
                    }
                } catch { failures[id] = error }
            }
            for (id, file) in replacements {
                do throws(SystemError) { try file.commit() } catch { failures[id] = error }
            }
            rest = rest.dropFirst(filesAtOnce)
        }
        do throws(SystemError) {
            try Files.syncFolder(folder)
        } catch { for id in batch.keys where failures[id] == nil { failures[id] = error } }
        return failures
    }

    /// The record of a task, or nil where there is none that can be read.
    package func load(_ id: String) async -> TaskRecord? {
        if case .some(.some(let content)) = pending[id] { return try? TaskRecord(decoding: content) }
        let path = "\(folder)/\(id).json"
        return await lane.run { TaskStore.read(path) }
    }

    private static let maxRecordBytes = 4 << 20

    private static func read(_ path: String) -> TaskRecord? {
        guard let bytes = try? Files.read(path, limit: maxRecordBytes) else { return nil }
        return try? TaskRecord(decoding: bytes)
    }

    /// What was found on disk at the start.
    package struct Inventory: Sendable {
        package var records: [TaskRecord] = []
        /// Files that hold no record, set aside as `NAME.corrupt`.
        package var corrupt: [String] = []
    }

    /// Reads all records; what can't be read is set aside.
    package func loadAll() async throws(SystemError) -> Inventory {
        let folder = folder
        return try await lane.run { () throws(SystemError) in
            var inventory = Inventory()
            for name in try Files.names(in: folder) {
                let path = "\(folder)/\(name)"
                if name.hasSuffix(".corrupt") {
                    inventory.corrupt.append(name)
                } else if name.hasSuffix(".tmp") {
                    try? Files.remove(path)  // a write that a crash broke off
                } else if name.hasSuffix(".json") {
                    if let record = TaskStore.read(path), record.id + ".json" == name {
                        inventory.records.append(record)
                    } else {
                        unsafe rename(path, path + ".corrupt")
                        inventory.corrupt.append(name + ".corrupt")
                    }
                }
            }
            return inventory
        }
    }
}
