/** Follow a Pockyt listener from a POS: every event once, in order, acknowledged once handled. */

export declare const PROTOCOL: 'pos.v1';
/** The type of the events that a snapshot brings after a position was lost. */
export declare const SNAPSHOT: 'transaction.snapshot';

/** A place in a stream, good only in the ledger of its epoch. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A transaction as a till shows it. */
export interface EventData {
  readonly transactionNo: string;
  readonly reference?: string | null;
  readonly merchantNo: string;
  readonly storeNo?: string | null;
  readonly terminal?: string | null;
  /** created, pending, paid, failed, cancelled, refunded, conflict or unknown. */
  readonly status: string;
  /** Pockyt's own word. */
  readonly providerStatus?: string | null;
  readonly stateVersion: number;
  /** Decimal text. */
  readonly amount?: string | null;
  readonly currency?: string | null;
  readonly reason?: string | null;
  /** signature, answer, query or none. */
  readonly evidence?: string;
}

/** What a till is told, as CloudEvents 1.0. */
export interface PosEvent {
  readonly specversion: '1.0';
  readonly id: string;
  readonly source: string;
  /** `transaction.cancelled` and so on; `transaction.snapshot` after a position was lost. */
  readonly type: string;
  readonly subject: string;
  readonly time: string;
  readonly datacontenttype: string;
  readonly data: EventData;
}

/** What the listener said when a position could not be resumed. */
export interface Resync {
  readonly stream: string;
  /** epoch_changed or offset_ahead. */
  readonly reason: string;
  readonly epoch: string;
  readonly head: number;
  readonly snapshot: string;
}

/**
 * Why it is not live: `starting` (also after a lost position, until its snapshot is read); `unreachable` (no such name, nobody there, hung up); `tls`;
 * `silent` (no answer, or a dead line); `refused` (by a proxy, a firewall, a sign-on page);
 * `not_websocket` (something else answers, or lets no WebSocket through); `closed`; `stopped`.
 */
export type Cause =
  | 'starting'
  | 'unreachable'
  | 'tls'
  | 'silent'
  | 'refused'
  | 'not_websocket'
  | 'closed'
  | 'stopped';

export interface Status {
  /**
   * Only `live` is live: say so on the page otherwise. Events may come while it is `connecting`: then the
   * snapshot after a lost position is not read, and something may be missing.
   */
  readonly state: 'connecting' | 'live' | 'stopped';
  readonly transport: 'websocket' | 'long-poll' | null;
  /** How old the listener's last word is; null before the first. */
  readonly ageMs: number | null;
  /** Why it is not live, for programs; null while it is. */
  readonly cause: Cause | null;
  /** Why it is not live, for people; '' while it is. */
  readonly why: string;
}

/** Keeps a position for each stream; written after each event that was handled. */
export interface PositionStore {
  load(): Promise<Record<string, Position>> | Record<string, Position>;
  save(stream: string, position: Position): Promise<void> | void;
}

/** Keeps positions for as long as the program runs. */
export declare class MemoryPositions implements PositionStore {
  constructor(positions?: Record<string, Position>);
  load(): Promise<Record<string, Position>>;
  save(stream: string, position: Position): Promise<void>;
}

/** Keeps positions in localStorage, or another storage, under one name: one of its own for each till. */
export declare class StoragePositions implements PositionStore {
  constructor(
    storage?: {
      getItem(name: string): string | null;
      setItem(name: string, text: string): void;
    } | null,
    name?: string,
  );
  load(): Promise<Record<string, Position>>;
  save(stream: string, position: Position): Promise<void>;
}

/** The listener said not to come back unchanged; the message says what to do. */
export declare class StoppedError extends Error {
  constructor(code: number, detail?: string, problem?: string);
  readonly code: number;
}

/** What is needed of a WebSocket: that of browsers, of Node 22, or of the package `ws`. */
export type WebSocketLike = new (
  url: string,
  protocols?: string[],
) => {
  readonly readyState: number;
  send(text: string): void;
  close(code?: number): void;
  addEventListener(type: string, listener: (event: any) => void): void;
};

/** How long to wait for what. */
export interface Timing {
  connectMs: number;
  slowMs: number;
  retryFirstMs: number;
  retryMaxMs: number;
  behindMs: number;
  ackMs: number;
  pollSeconds: number;
  blockedTries: number;
  websocketAgainMs: number;
  statusMs: number;
  /** Gives numbers in [0, 1) for the jitter. */
  random: () => number;
}

export interface FollowOptions {
  /** Of a POS; blanks around it do not count. Never put into a URL. */
  key: string;
  /** Those to follow; without: all of the key's scope. Long-poll wants the names where it is several. */
  streams?: string | readonly string[] | null;
  /** Where to keep how far this POS has come; without: only at the listener. */
  position?: PositionStore;
  /** Whether to acknowledge (true); an admin key may not. */
  acks?: boolean;
  /**
   * Called on each change, at the latest a second after it ceased to be live, with the cause; and
   * about once a second, so that a page can show the age.
   */
  onStatus?: (status: Status) => void;
  /** Called before a snapshot: what was shown before is to be forgotten. Events may come before its end. */
  onResync?: (resync: Resync) => void;
  /** Stops following when it aborts. */
  signal?: AbortSignal;
  /** Another WebSocket; null for long-poll only. */
  WebSocket?: WebSocketLike | null;
  fetch?: typeof globalThis.fetch;
  timing?: Partial<Timing>;
}

/**
 * Events of a listener's streams. An event is handled, saved and acknowledged when the next one
 * is asked for; leaving the loop closes the connection.
 */
export declare class Follower implements AsyncIterableIterator<PosEvent> {
  constructor(url: string | URL, options: FollowOptions);
  readonly status: Status;
  /** The streams that are followed; those of the key's scope are known once it is live. */
  readonly streams: string[];
  /** Up to where each stream was handled. */
  readonly positions: Record<string, Position>;
  /**
   * Rejects with StoppedError where the listener said not to come back unchanged, and with what the program's
   * own callbacks and position store throw. Either ends it for good.
   */
  next(): Promise<IteratorResult<PosEvent, undefined>>;
  return(): Promise<IteratorResult<PosEvent, undefined>>;
  /** Send the acks that wait, say good-bye, let go. */
  close(): void;
  [Symbol.asyncIterator](): this;
}

/** Follow a listener's streams for ever. */
export declare function follow(url: string | URL, options: FollowOptions): Follower;

/** What a client does after a close code. */
export declare function dutyOf(
  code: number,
): 'stop' | 'backOff' | 'backOffLonger' | 'restart' | 'atOnce';
